// PTX text -> a tree of modules, functions and instructions.
//
// The parser knows PTX's syntax (scopes, declarations, operands), not what an instruction means: an
// opcode stays a list of dot-separated parts. Meaning is given by the opcode tables (machine.h).
#pragma once
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace softgpu {

// Raised for text that is not PTX we understand; the message names the line.
struct PtxError : std::runtime_error {
    PtxError(int line, const std::string& message)
        : std::runtime_error("PTX line " + std::to_string(line) + ": " + message), line(line) {}
    int line;
};

struct Operand {
    enum class Kind { Register, Symbol, Integer, Float, Address, Vector, Sink };
    Kind kind = Kind::Sink;
    std::string name;             // Register / Symbol; for Address the base (empty: absolute)
    std::string second;           // the q of `p|q`
    bool negated = false;         // `!p`
    uint64_t bits = 0;            // Integer value, or the IEEE bits of a Float (32 or 64)
    int float_bits = 0;           // 32 for 0fXXXXXXXX, 64 for 0dX.. and decimal literals
    int64_t offset = 0;           // Address: constant added to the base; Symbol: `sym+4`
    std::vector<Operand> parts;   // Vector: elements; Address: what follows the base, `[map, {x, y}]`
};

struct ParsedInstr {
    int line = 0;
    int scope = 0;
    std::string guard;            // predicate register of `@p`, empty if unconditional
    bool guard_negated = false;
    std::vector<std::string> opcode;   // {"ld", "global", "v4", "b32"}
    std::vector<Operand> operands;
    std::vector<Operand> call_returns;   // call only: `(ret), name, (args)`
    std::vector<Operand> call_args;
    uint32_t file = 0, file_line = 0, file_column = 0;   // of the source, from the .loc before it; 0: unknown
    std::string opcode_text() const;
};

struct Variable {
    std::string name;
    std::string space;            // global, shared, local, param, const
    uint32_t align = 1;
    uint64_t size = 0;            // bytes; 0 for `extern .shared x[]`
    bool is_extern = false;
    std::vector<uint8_t> init;    // empty: zero
    struct Reference { uint64_t offset; std::string symbol; };
    std::vector<Reference> references;   // addresses of other symbols inside the initialiser
    int scope = 0;
    int line = 0;
};

struct Scope {
    int parent = -1;
    std::map<std::string, std::string> registers;                      // name -> type ("b32")
    std::map<std::string, std::pair<unsigned, std::string>> ranges;    // prefix -> (count, type)
    std::map<std::string, size_t> labels;                              // name -> instruction index
    std::map<std::string, size_t> variables;                           // name -> index in Function::variables
};

struct Function {
    std::string name;
    bool is_entry = false;
    bool is_extern = false;       // declared only (vprintf, __assertfail)
    int line = 0;
    std::vector<Variable> returns, params;
    std::vector<Variable> variables;   // .local/.shared/.param declared inside
    std::vector<Scope> scopes;         // [0] is the function's own
    std::vector<ParsedInstr> body;
    std::map<std::string, std::vector<uint32_t>> directives;   // reqntid, maxntid, reqnctapercluster ...
    std::map<std::string, std::vector<std::string>> branch_targets;   // label -> labels, for brx.idx
};

struct ParsedModule {
    std::string target;                // "sm_90a"
    std::vector<Function> functions;
    std::vector<Variable> variables;
    std::vector<std::string> lines;    // the source, for reports
    std::map<uint32_t, std::string> files;   // names of source files, by their number in .loc
    const Function* find(const std::string& name) const;
};

ParsedModule parse_ptx(std::string_view text);

}  // namespace softgpu
