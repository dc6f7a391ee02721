"""For ``test_aot_inductor.py``, in a process of its own: ``LIBRARY PACKAGE [BUNDLE]``.

With BUNDLE a model that calls the operator of ``csrc/bundle/torch_op.cpp`` is exported and compiled into PACKAGE;
without, PACKAGE is loaded and run, on the software GPU, and compared.
"""

from __future__ import annotations

import sys

import torch

from tests import softgpu

SIZE = 100


def compile_model(package: str, bundle: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.relu(torch.ops.helion_example.add(bundle, x, y, 2.0)) + 1

    torch._inductor.config.aot_inductor.compile_wrapper_opt_level = "O0"  # the compile of it is most of the test
    exported = torch.export.export(Model(), (torch.zeros(SIZE), torch.zeros(SIZE)))
    torch._inductor.aoti_compile_and_package(exported, package_path=package)


def run(package: str) -> None:
    softgpu.install(90, triton=False)
    model = torch._inductor.aoti_load_package(package)
    before = softgpu.launches()
    for _ in range(3):
        x, y = torch.randn(SIZE), torch.randn(SIZE)
        torch.testing.assert_close(model(x, y), torch.relu(3 * x + 2 * y) + 1)
    print(softgpu.launches() - before, "launches")
    try:
        model(torch.randn(SIZE).double(), torch.randn(SIZE).double())
    except RuntimeError as error:
        print("refused:", error)


if __name__ == "__main__":
    library, package, *bundle = sys.argv[1:]
    torch.ops.load_library(library)
    if bundle:
        compile_model(package, *bundle)
    else:
        run(package)
