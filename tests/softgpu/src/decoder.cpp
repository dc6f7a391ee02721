// Parsed functions -> programs: register slots, symbols, labels, calls expanded in place.
//
// PTX functions of Triton and CuTe kernels never recurse, so a call is the callee's body in the caller's code:
// its registers are fresh, its parameters are the caller's `.param` variables (which live in local memory).
#include "decoder.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "calls.h"

namespace softgpu {

// One function body in the program: the entry, or one expanded call of a device function.
struct Expansion {
    const Function* function;
    int id;                                                     // makes register keys unique
    std::unordered_map<std::string, uint32_t> variables;        // local and .param variables: local offset
    std::vector<uint32_t> label_of_index;                       // body index -> label id, UINT32_MAX if none
    uint32_t return_label = UINT32_MAX;                         // entry: none, `ret` exits
};

class FunctionDecoder {
public:
    FunctionDecoder(const ParsedModule& module, const SymbolTable& symbols, Program& program)
        : module(module), symbols(symbols), program(program) {}

    const ParsedModule& module;
    const SymbolTable& symbols;
    Program& program;
    Expansion* current = nullptr;
    int expansions = 0, depth = 0;
    std::unordered_map<std::string, uint32_t> function_shared;  // .shared variables inside functions
    std::unordered_map<std::string, Slot> slots;                // "expansion:scope:name"
    std::unordered_map<uint64_t, Slot> constants;               // kind and bits -> slot
    std::vector<uint32_t> label_positions;                      // label id -> code index
    std::vector<size_t> patch_code;                             // Program::code whose target is a label id
    std::vector<uint32_t*> patch_words;                         // the same inside extras
    uint32_t pred_block = 0, preds_left = 0;
    std::map<const Function*, std::optional<std::set<std::pair<std::string, int64_t>>>>
        swapped;  // addresses of atom.cas

    Slot allocate(unsigned bits) {
        if (bits == 1) {
            if (preds_left == 0) {
                pred_block = program.register_bytes;
                program.register_bytes += 64;
                preds_left = 16;
            }
            return pred_block + 4 * (16 - preds_left--);
        }
        const Slot slot = program.register_bytes;
        program.register_bytes += kWarpSize * (bits <= 32 ? 4 : bits / 8);
        return slot;
    }
    Slot constant(Constant::Kind kind, uint64_t bits, unsigned width) {
        // Kinds are few and bits may be any 64-bit value: mix, then look through collisions linearly.
        for (uint64_t key = bits * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(kind) * 0x100000001b3ull;; ++key) {
            const auto it = constants.find(key);
            if (it == constants.end()) {
                const Slot slot = allocate(width);
                constants[key] = slot;
                program.constants.push_back({kind, slot, bits, width});
                return slot;
            }
            for (const auto& c : program.constants)
                if (c.slot == it->second && c.kind == kind && c.bits == bits && c.width == width) return c.slot;
        }
    }
    uint32_t new_label() {
        label_positions.push_back(UINT32_MAX);
        return static_cast<uint32_t>(label_positions.size()) - 1;
    }
    void place_label(uint32_t label) { label_positions[label] = static_cast<uint32_t>(program.code.size()); }

    uint32_t allocate_local(uint64_t bytes, uint32_t align) {
        const uint32_t a = std::max(align, 1u);
        program.local_bytes = (program.local_bytes + a - 1) / a * a;
        const uint32_t offset = program.local_bytes;
        program.local_bytes += static_cast<uint32_t>(bytes);
        return offset;
    }

    // The register `name` as seen from `scope`: (declaring scope, type), or false.
    bool find_register(const std::string& name, int scope, int& where, std::string& type) const {
        const auto& scopes = current->function->scopes;
        size_t digits = name.size();
        while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
        const std::string prefix = name.substr(0, digits);
        for (int s = scope; s >= 0; s = scopes[static_cast<size_t>(s)].parent) {
            const Scope& sc = scopes[static_cast<size_t>(s)];
            where = s;
            if (const auto it = sc.registers.find(name); it != sc.registers.end()) { type = it->second; return true; }
            if (const auto it = sc.ranges.find(prefix); digits < name.size() && it != sc.ranges.end()) {
                type = it->second.second;
                return true;
            }
        }
        return false;
    }
    Slot register_slot(const std::string& name, int where, unsigned bits) {
        const std::string key = std::to_string(current->id) + ":" + std::to_string(where) + ":" + name;
        const auto it = slots.find(key);
        if (it != slots.end()) return it->second;
        return slots[key] = allocate(bits);
    }

    void function_body(Expansion& expansion);
    void call(const ParsedInstr& parsed);
    void one(const ParsedInstr& parsed);
    void patch();
};

// ---- special registers ----------------------------------------------------------------------------------------
namespace {
struct SpecialRow { const char* name; Constant::Kind kind; };
using K = Constant::Kind;
const SpecialRow kSpecials[] = {
    {"%tid.x", K::TidX},
    {"%tid.y", K::TidY},
    {"%tid.z", K::TidZ},
    {"%ntid.x", K::NtidX},
    {"%ntid.y", K::NtidY},
    {"%ntid.z", K::NtidZ},
    {"%ctaid.x", K::CtaidX},
    {"%ctaid.y", K::CtaidY},
    {"%ctaid.z", K::CtaidZ},
    {"%nctaid.x", K::NctaidX},
    {"%nctaid.y", K::NctaidY},
    {"%nctaid.z", K::NctaidZ},
    {"%laneid", K::LaneId},
    {"%warpid", K::WarpId},
    {"%nwarpid", K::NwarpId},
    {"%smid", K::SmId},
    {"%nsmid", K::NsmId},
    {"%gridid", K::GridId},
    {"%envreg1", K::EnvReg1},
    {"%envreg2", K::EnvReg2},
    {"%lanemask_eq", K::LanemaskEq},
    {"%lanemask_lt", K::LanemaskLt},
    {"%lanemask_le", K::LanemaskLe},
    {"%lanemask_gt", K::LanemaskGt},
    {"%lanemask_ge", K::LanemaskGe},
    {"%dynamic_smem_size", K::DynamicSmemSize},
    {"%total_smem_size", K::TotalSmemSize},
    {"%aggr_smem_size", K::AggrSmemSize},
    {"%clusterid.x", K::ClusteridX},
    {"%clusterid.y", K::ClusteridY},
    {"%clusterid.z", K::ClusteridZ},
    {"%nclusterid.x", K::NclusteridX},
    {"%nclusterid.y", K::NclusteridY},
    {"%nclusterid.z", K::NclusteridZ},
    {"%cluster_ctaid.x", K::ClusterCtaidX},
    {"%cluster_ctaid.y", K::ClusterCtaidY},
    {"%cluster_ctaid.z", K::ClusterCtaidZ},
    {"%cluster_nctaid.x", K::ClusterNctaidX},
    {"%cluster_nctaid.y", K::ClusterNctaidY},
    {"%cluster_nctaid.z", K::ClusterNctaidZ},
    {"%cluster_ctarank", K::ClusterCtarank},
    {"%cluster_nctarank", K::ClusterNctarank},
    {"%is_explicit_cluster", K::IsExplicitCluster},
    {"%tid", K::TidX},
    {"%ntid", K::NtidX},
    {"%ctaid", K::CtaidX},
    {"%nctaid", K::NctaidX},
};
const SpecialRow* find_special(const std::string& name) {
    for (const auto& row : kSpecials) if (name == row.name) return &row;
    return nullptr;
}
}  // namespace

// ---- Decoder: modifiers ---------------------------------------------------------------------------------------
Decoder::Decoder(FunctionDecoder& function, const ParsedInstr& parsed, size_t family_parts)
    : parsed(parsed), function(function),
      modifiers_(parsed.opcode.begin() + static_cast<std::ptrdiff_t>(family_parts), parsed.opcode.end()) {}

bool Decoder::take(const char* modifier) {
    const auto it = std::find(modifiers_.begin(), modifiers_.end(), modifier);
    if (it == modifiers_.end()) return false;
    modifiers_.erase(it);
    return true;
}
std::string Decoder::take_any(std::initializer_list<const char*> candidates) {
    for (const char* c : candidates) if (take(c)) return c;
    return "";
}
Type Decoder::maybe_type() {
    for (auto it = modifiers_.begin(); it != modifiers_.end(); ++it)
        if (const Type t = parse_type(*it); t != Type::None) {
            modifiers_.erase(it);
            return t;
        }
    return Type::None;
}
Type Decoder::take_type() {
    const Type t = maybe_type();
    if (t == Type::None) error("needs a type");
    return t;
}
std::string Decoder::take_prefixed(const char* prefix) {
    for (auto it = modifiers_.begin(); it != modifiers_.end(); ++it)
        if (it->rfind(prefix, 0) == 0) {
            std::string text = *it;
            modifiers_.erase(it);
            return text;
        }
    return "";
}
void Decoder::require_all_taken() const {
    if (!modifiers_.empty()) error("modifier ." + modifiers_[0] + " is not implemented");
}
void Decoder::error(const std::string& message) const {
    throw PtxError(parsed.line, parsed.opcode_text() + ": " + message);
}

// ---- Decoder: operands ----------------------------------------------------------------------------------------
const Operand& Decoder::operand(size_t i) const {
    if (i >= parsed.operands.size()) error("needs operand " + std::to_string(i + 1));
    return parsed.operands[i];
}
void Decoder::keep(std::shared_ptr<void> owner) { function.program.extras.push_back(std::move(owner)); }
Slot Decoder::scratch(unsigned bits) { return function.allocate(bits); }
Slot Decoder::constant32(uint32_t bits) { return function.constant(K::Bits32, bits, 32); }

unsigned Decoder::width(const Operand& op) const {
    if (op.kind == Operand::Kind::Symbol) return 64;
    if (op.kind != Operand::Kind::Register) return 0;
    int where;
    std::string type;
    if (function.find_register(op.name, parsed.scope, where, type)) return type_bits(parse_type(type));
    return find_special(op.name) ? 32 : 0;
}

Slot Decoder::src(const Operand& op, Type type) {
    const unsigned bits = type_bits(type);
    switch (op.kind) {
        case Operand::Kind::Register: {
            int where;
            std::string declared;
            if (function.find_register(op.name, parsed.scope, where, declared)) {
                const unsigned have = type_bits(parse_type(declared));
                if (bits > 32 && have < bits)
                    error("register " + op.name + " (." + declared + ") is too narrow for ." + type_name(type));
                if (bits <= 32 && have > 32)
                    error("register " + op.name + " (." + declared + ") is too wide for ." + type_name(type));
                return function.register_slot(op.name, where, have);
            }
            if (const SpecialRow* special = find_special(op.name))
                return function.constant(special->kind, 0, bits > 32 ? 64 : 32) ;
            error("unknown register " + op.name);
        }
        case Operand::Kind::Integer:
            return bits > 32 ? function.constant(K::Bits64, op.bits, 64)
                             : function.constant(K::Bits32, bits == 32 ? static_cast<uint32_t>(op.bits)
                                                                       : op.bits & ((1ull << bits) - 1), 32);
        case Operand::Kind::Float: {
            double value;
            float single;
            if (op.float_bits == 32) {
                const auto word = static_cast<uint32_t>(op.bits);
                std::memcpy(&single, &word, 4);
                value = single;
            } else {
                std::memcpy(&value, &op.bits, 8);
                single = static_cast<float>(value);
            }
            if (bits == 64) {
                uint64_t word;
                std::memcpy(&word, &value, 8);
                return function.constant(K::Bits64, word, 64);
            }
            if (bits != 32) error("a float literal cannot be a ." + std::string(type_name(type)));
            uint32_t word;
            std::memcpy(&word, &single, 4);
            return function.constant(K::Bits32, word, 32);
        }
        case Operand::Kind::Symbol: {
            const uint64_t extra = static_cast<uint64_t>(op.offset);
            if (const auto it = function.current->variables.find(op.name); it != function.current->variables.end())
                return function.constant(K::LocalAddress, it->second + extra, bits > 32 ? 64 : 32);
            for (const auto& p : function.program.params)
                if (p.name == op.name && function.depth == 0)
                    return function.constant(K::ParamAddress, p.offset + extra, 64);
            if (const auto it = function.function_shared.find(op.name); it != function.function_shared.end())
                return function.constant(K::SharedAddress, it->second + extra, bits > 32 ? 64 : 32);
            if (const auto it = function.symbols.addresses.find(op.name); it != function.symbols.addresses.end())
                return function.constant(K::Bits64, it->second + extra, 64);
            error("unknown symbol " + op.name);
        }
        case Operand::Kind::Sink: return scratch(bits);   // an unused source: anything will do
        default: error("an address or vector stands where a value is needed");
    }
}

Slot Decoder::dst(const Operand& op, Type type) {
    const unsigned bits = type_bits(type);
    if (op.kind == Operand::Kind::Sink) return scratch(bits);
    if (op.kind != Operand::Kind::Register) error("destination is not a register");
    int where;
    std::string declared;
    if (!function.find_register(op.name, parsed.scope, where, declared)) error("unknown register " + op.name);
    const unsigned have = type_bits(parse_type(declared));
    if ((bits > 32) != (have > 32) || have < bits || (bits == 128) != (have == 128))
        error("register " + op.name + " (." + declared + ") does not fit ." + type_name(type));
    return function.register_slot(op.name, where, have);
}

Slot Decoder::pred_src(const Operand& op, bool* negated) {
    *negated = op.negated;
    if (op.kind == Operand::Kind::Integer) return function.constant(K::Pred, op.bits ? kAllLanes : 0, 1);
    int where;
    std::string declared;
    if (!function.find_register(op.name, parsed.scope, where, declared) || declared != "pred")
        error(op.name + " is not a predicate");
    return function.register_slot(op.name, where, 1);
}
Slot Decoder::pred_src(size_t i, bool* negated) { return pred_src(operand(i), negated); }

Slot Decoder::pred_dst(const std::string& name) {
    if (name.empty() || name == "_") return function.allocate(1);
    int where;
    std::string declared;
    if (!function.find_register(name, parsed.scope, where, declared) || declared != "pred")
        error(name + " is not a predicate");
    return function.register_slot(name, where, 1);
}

std::vector<Slot> Decoder::src_list(size_t i, Type type) {
    const Operand& op = operand(i);
    if (op.kind != Operand::Kind::Vector) return {src(op, type)};
    std::vector<Slot> slots;
    for (const auto& part : op.parts) slots.push_back(src(part, type));
    return slots;
}
std::vector<Slot> Decoder::dst_list(size_t i, Type type) {
    const Operand& op = operand(i);
    if (op.kind != Operand::Kind::Vector) return {dst(op, type)};
    std::vector<Slot> slots;
    for (const auto& part : op.parts) slots.push_back(dst(part, type));
    return slots;
}

Address Decoder::address(const Operand& op) {
    if (op.kind != Operand::Kind::Address) error("needs an address operand");
    Address a;
    a.offset = op.offset;
    if (op.name.empty()) return a;
    int where;
    std::string declared;
    if (function.find_register(op.name, parsed.scope, where, declared)) {
        const unsigned bits = type_bits(parse_type(declared));
        if (bits != 32 && bits != 64) error("address register " + op.name + " must have 32 or 64 bits");
        a.wide = bits == 64;
        a.base = function.register_slot(op.name, where, bits);
        return a;
    }
    Operand symbol;
    symbol.kind = Operand::Kind::Symbol;
    symbol.name = op.name;
    a.wide = true;
    a.base = src(symbol, Type::B64);
    return a;
}

bool Decoder::is_compared_and_swapped(const Operand& op) const {
    auto& known = function.swapped[function.current->function];
    if (!known) {
        known.emplace();
        for (const ParsedInstr& i : function.current->function->body)
            if (i.opcode[0] == "atom" && std::find(i.opcode.begin(), i.opcode.end(), "cas") != i.opcode.end() &&
                i.operands.size() > 1)
                known->emplace(i.operands[1].name, i.operands[1].offset);
    }
    return known->count({op.name, op.offset}) != 0;
}
Space Decoder::symbol_space(const Operand& op) const {
    if (op.name.empty()) return Space::Generic;
    if (function.current->variables.count(op.name)) return Space::Local;
    if (function.function_shared.count(op.name)) return Space::Shared;
    if (function.symbols.addresses.count(op.name)) return Space::Global;
    return Space::Generic;
}
std::optional<uint64_t> Decoder::immediate(size_t i) const {
    const Operand& op = operand(i);
    if (op.kind != Operand::Kind::Integer) return std::nullopt;
    return op.bits;
}
uint32_t Decoder::label(size_t i) {
    const std::string& name = operand(i).name;
    const auto& scopes = function.current->function->scopes;
    for (int s = parsed.scope; s >= 0; s = scopes[static_cast<size_t>(s)].parent) {
        const auto& labels = scopes[static_cast<size_t>(s)].labels;
        if (const auto it = labels.find(name); it != labels.end()) {
            function.patch_code.push_back(function.program.code.size());
            return function.current->label_of_index[it->second];
        }
    }
    error("unknown label " + name);
}

// ---- functions ------------------------------------------------------------------------------------------------
void FunctionDecoder::one(const ParsedInstr& parsed) {
    size_t used = 0;
    const OpRow* row = find_op(parsed.opcode, used);
    if (!row) throw PtxError(parsed.line, "unknown opcode " + parsed.opcode_text());
    Decoder d(*this, parsed, used);
    Instr in;
    in.source = static_cast<uint32_t>(program.sources.size());
    std::string text = parsed.line > 0 && static_cast<size_t>(parsed.line) <= module.lines.size()
                           ? module.lines[static_cast<size_t>(parsed.line) - 1] : "";
    text.erase(0, text.find_first_not_of(" \t"));
    program.sources.push_back({parsed.line, parsed.opcode_text(), text});
    if (const auto file = module.files.find(parsed.file); parsed.file_line && file != module.files.end())
        program.sources.back().location =
            file->second + ":" + std::to_string(parsed.file_line) + ":" + std::to_string(parsed.file_column);
    if (!parsed.guard.empty()) {
        Operand guard;
        guard.kind = Operand::Kind::Register;
        guard.name = parsed.guard;
        guard.negated = parsed.guard_negated;
        in.guard = d.pred_src(guard, &in.guard_negated);
    }
    if (parsed.opcode[0] == "ret" && current->return_label != UINT32_MAX) {
        in.fn = exec_branch;
        in.target = current->return_label;
        patch_code.push_back(program.code.size());
        program.code.push_back(in);
        return;
    }
    row->decode(d, in);
    d.require_all_taken();
    program.code.push_back(in);
}

void FunctionDecoder::call(const ParsedInstr& parsed) {
    if (parsed.operands.size() != 1)
        throw PtxError(parsed.line, "indirect calls are not supported");
    const Function* callee = module.find(parsed.operands[0].name);
    if (!callee) throw PtxError(parsed.line, "call of unknown function " + parsed.operands[0].name);
    if (depth > 32) throw PtxError(parsed.line, "recursive call of " + callee->name);
    const auto variable = [&](const Operand& op) {
        const auto it = current->variables.find(op.name);
        if (it == current->variables.end())
            throw PtxError(parsed.line, "call argument " + op.name + " is not a .param variable");
        return it->second;
    };
    if (callee->is_extern) {
        const ExecFn builtin = find_builtin(callee->name);
        if (!builtin) throw PtxError(parsed.line, "unknown opcode: call of external function " + callee->name);
        Decoder d(*this, parsed, 1);
        auto* operands = d.make_extra<CallOperands>();
        for (const auto& op : parsed.call_args) operands->args.push_back(variable(op));
        for (const auto& op : parsed.call_returns) operands->returns.push_back(variable(op));
        Instr in;
        in.fn = builtin;
        in.extra = operands;
        in.source = static_cast<uint32_t>(program.sources.size());
        program.sources.push_back({parsed.line, parsed.opcode_text(), "call " + callee->name});
        if (!parsed.guard.empty()) {
            Operand guard;
            guard.name = parsed.guard;
            guard.negated = parsed.guard_negated;
            in.guard = d.pred_src(guard, &in.guard_negated);
        }
        program.code.push_back(in);
        return;
    }
    Expansion inner{callee, ++expansions, {}, {}, new_label()};
    for (size_t i = 0; i < callee->params.size() && i < parsed.call_args.size(); ++i)
        inner.variables[callee->params[i].name] = variable(parsed.call_args[i]);
    for (size_t i = 0; i < callee->returns.size() && i < parsed.call_returns.size(); ++i)
        inner.variables[callee->returns[i].name] = variable(parsed.call_returns[i]);
    if (!parsed.guard.empty()) {
        Decoder d(*this, parsed, 1);
        Operand guard;
        guard.name = parsed.guard;
        guard.negated = !parsed.guard_negated;
        Instr skip;
        skip.fn = exec_branch;
        skip.guard = d.pred_src(guard, &skip.guard_negated);
        skip.target = inner.return_label;
        patch_code.push_back(program.code.size());
        program.code.push_back(skip);
    }
    Expansion* outer = current;
    ++depth;
    function_body(inner);
    --depth;
    current = outer;
    place_label(inner.return_label);
}

void FunctionDecoder::function_body(Expansion& expansion) {
    current = &expansion;
    const Function& f = *expansion.function;
    for (const auto& v : f.variables)
        if (v.space != "shared" && !expansion.variables.count(v.name))
            expansion.variables[v.name] = allocate_local(v.size, v.align);
    expansion.label_of_index.assign(f.body.size() + 1, UINT32_MAX);
    for (const auto& scope : f.scopes)
        for (const auto& [name, index] : scope.labels)
            if (expansion.label_of_index[index] == UINT32_MAX) expansion.label_of_index[index] = new_label();
    for (size_t i = 0; i <= f.body.size(); ++i) {
        if (expansion.label_of_index[i] != UINT32_MAX) place_label(expansion.label_of_index[i]);
        if (i == f.body.size()) break;
        current = &expansion;
        if (f.body[i].opcode[0] == "call") call(f.body[i]);
        else one(f.body[i]);
    }
}

void FunctionDecoder::patch() {
    program.joins.assign(program.code.size() + 1, false);
    for (const size_t i : patch_code)
        program.joins[program.code[i].target = label_positions[program.code[i].target]] = true;
    for (uint32_t* word : patch_words) *word = label_positions[*word];
}

void decode_branch_table(Decoder& d, Instr& in) {
    const std::string& name = d.operand(1).name;
    const auto& tables = d.function.current->function->branch_targets;
    const auto it = tables.find(name);
    if (it == tables.end()) d.error("unknown branch target list " + name);
    auto* table = d.make_extra<std::vector<uint32_t>>();
    for (const auto& label : it->second) {
        const auto& scopes = d.function.current->function->scopes;
        for (int s = d.parsed.scope; s >= 0; s = scopes[static_cast<size_t>(s)].parent)
            if (const auto l = scopes[static_cast<size_t>(s)].labels.find(label);
                l != scopes[static_cast<size_t>(s)].labels.end()) {
                table->push_back(d.function.current->label_of_index[l->second]);
                break;
            }
    }
    if (table->size() != it->second.size()) d.error("unknown label in branch target list " + name);
    for (auto& word : *table) d.function.patch_words.push_back(&word);
    in.a = d.src(0, Type::U32);
    in.extra = table;
}

std::shared_ptr<Program> decode_entry(const ParsedModule& module, const Function& entry, const SymbolTable& symbols) {
    auto program = std::make_shared<Program>();
    program->kernel = entry.name;
    FunctionDecoder decoder(module, symbols, *program);

    uint32_t offset = 0;
    for (const auto& p : entry.params) {
        offset = (offset + p.align - 1) / p.align * p.align;
        program->params.push_back({p.name, offset, static_cast<uint32_t>(p.size)});
        offset += static_cast<uint32_t>(p.size);
    }
    program->param_bytes = offset;

    // Shared memory: the module's variables, then those inside functions, then the dynamic part.
    uint32_t shared = symbols.static_shared;
    decoder.function_shared = symbols.shared;
    for (const auto& f : module.functions)
        for (const auto& v : f.variables)
            if (v.space == "shared" && !v.is_extern) {
                shared = (shared + v.align - 1) / v.align * v.align;
                decoder.function_shared[v.name] = shared;
                shared += static_cast<uint32_t>(v.size);
            }
    for (const auto& v : module.variables)
        if (v.space == "shared" && v.is_extern) shared = (shared + v.align - 1) / v.align * v.align;
    program->static_shared = shared;
    for (const auto& v : module.variables)
        if (v.space == "shared" && v.is_extern) decoder.function_shared[v.name] = shared;

    const auto directive = [&](const char* name) { return entry.directives.find(name); };
    if (const auto it = directive("reqnctapercluster"); it != entry.directives.end() && !it->second.empty()) {
        const auto& v = it->second;
        program->required_cluster = {v[0], v.size() > 1 ? v[1] : 1, v.size() > 2 ? v[2] : 1};
    }
    for (const char* name : {"maxntid", "reqntid"})
        if (const auto it = directive(name); it != entry.directives.end() && !it->second.empty()) {
            program->max_threads = 1;
            for (const uint32_t n : it->second) program->max_threads *= n;
        }

    Expansion body{&entry, 0, {}, {}, UINT32_MAX};
    decoder.function_body(body);
    // A body that falls off its end exits, and so does a label there.
    Instr exit;
    exit.fn = exec_exit;
    exit.source = static_cast<uint32_t>(program->sources.size());
    program->sources.push_back({entry.line, "exit", "(end of " + entry.name + ")"});
    program->code.push_back(exit);
    decoder.patch();
    program->register_bytes = (program->register_bytes + 63) / 64 * 64;
    return program;
}

}  // namespace softgpu
