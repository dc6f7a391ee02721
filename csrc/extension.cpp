// The translation unit of helion._C. A compiler spends 12 s on torch's headers each time it reads them and about 1 s on
// one of our files, so all of them are compiled together; each includes what it uses, as if it were compiled alone.

#include "broadcast.cpp"
#include "dispatcher.cpp"
#include "dispatcher_type.cpp"
#include "driver.cpp"
#include "environment.cpp"
#include "forwarder.cpp"
#include "launch_spec.cpp"
#include "launcher.cpp"
#include "module.cpp"
#include "output_pool.cpp"
#include "plan.cpp"
#include "plan_build.cpp"
#include "plan_table.cpp"
#include "signature.cpp"
#include "tensor_key.cpp"
#include "threads.cpp"
