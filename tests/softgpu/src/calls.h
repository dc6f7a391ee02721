// Control transfer that the decoder itself needs, and functions that the driver provides to device code (vprintf).
#pragma once
#include "machine.h"

namespace softgpu {

class Decoder;

// Local-memory offsets of the .param variables of a call.
struct CallOperands { std::vector<uint32_t> args, returns; };

ExecFn find_builtin(const std::string& name);   // nullptr if there is none

Flow exec_branch(Warp& w, const Instr& in, Mask m);   // to in.target
Flow exec_exit(Warp& w, const Instr& in, Mask m);
void decode_branch_table(Decoder& d, Instr& in);      // brx.idx: in.a, in.extra = std::vector<uint32_t>

}  // namespace softgpu
