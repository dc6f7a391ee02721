// What an opcode table's decode functions see: the parsed instruction, and operands as register slots.
#pragma once
#include <initializer_list>
#include <optional>

#include "machine.h"

namespace softgpu {

class FunctionDecoder;

class Decoder {
public:
    Decoder(FunctionDecoder& function, const ParsedInstr& parsed, size_t family_parts);

    const ParsedInstr& parsed;

    // ---- modifiers: what follows the family name -----------------------------------------------------
    bool take(const char* modifier);                     // consumes one modifier if present, anywhere
    std::string take_any(std::initializer_list<const char*> modifiers);   // the one present, or ""
    Type take_type();                                    // the next type among the modifiers, or an error
    Type maybe_type();                                   // the same, Type::None if there is none
    std::string take_prefixed(const char* prefix);       // ".m16n8k16" with prefix "m"; "" if none
    const std::vector<std::string>& modifiers() const { return modifiers_; }   // those not yet taken
    void require_all_taken() const;

    // ---- operands ---------------------------------------------------------------------------------------
    size_t operand_count() const { return parsed.operands.size(); }
    const Operand& operand(size_t i) const;
    Slot src(size_t i, Type type) { return src(operand(i), type); }
    Slot src(const Operand& op, Type type);              // register, immediate or address of a symbol
    Slot dst(size_t i, Type type) { return dst(operand(i), type); }
    Slot dst(const Operand& op, Type type);              // register, or a scratch slot for `_`
    Slot pred_src(size_t i, bool* negated);              // `p` or `!p`; a constant for immediates
    Slot pred_src(const Operand& op, bool* negated);
    Slot pred_dst(const std::string& name);              // the q of `p|q`
    Slot pred_dst(size_t i) { return pred_dst(operand(i).name); }
    unsigned width(const Operand& op) const;  // declared bits of a register; 64 for symbols; 0 for immediates
    unsigned width(size_t i) const { return width(operand(i)); }
    std::vector<Slot> src_list(size_t i, Type type);     // `{a, b}` or a single register
    std::vector<Slot> dst_list(size_t i, Type type);
    Address address(size_t i) { return address(operand(i)); }
    Address address(const Operand& op);                  // `[...]`; also fills the space of a named variable
    Space symbol_space(const Operand& op) const;         // where an address operand's base symbol lives
    // Whether the function compares and swaps at the same address, [register + offset]: then a plain load there is the
    // first guess of a loop, as LLVM makes atomics of others, and no harm comes of what it reads.
    bool is_compared_and_swapped(const Operand& op) const;
    std::optional<uint64_t> immediate(size_t i) const;   // the value if the operand is a constant
    uint32_t label(size_t i);                            // branch target
    Slot scratch(unsigned bits);                         // a fresh register
    Slot constant32(uint32_t bits);

    template <class T> T* make_extra() {
        auto owner = std::make_shared<T>();
        T* raw = owner.get();
        keep(std::move(owner));
        return raw;
    }
    [[noreturn]] void error(const std::string& message) const;   // "PTX line N: opcode: message"

    FunctionDecoder& function;

private:
    void keep(std::shared_ptr<void> owner);
    std::vector<std::string> modifiers_;
};

// Where a module's own symbols live: filled by the loader (module.cpp).
struct SymbolTable {
    std::unordered_map<std::string, uint64_t> addresses;           // .global and .const variables: host addresses
    std::unordered_map<std::string, uint32_t> shared;              // .shared variables: offset
    uint32_t static_shared = 0;                                    // bytes of module-level shared variables
};

// Decodes one entry function, with the functions it calls expanded in place.
std::shared_ptr<Program> decode_entry(const ParsedModule& module, const Function& entry, const SymbolTable& symbols);

}  // namespace softgpu
