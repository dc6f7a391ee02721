// The PTX grammar: a hand-written scanner and recursive descent over declarations, scopes, operands.
#include "ptx_parser.h"

#include <cctype>
#include <cstdlib>
#include <cstring>

namespace softgpu {

std::string ParsedInstr::opcode_text() const {
    std::string text;
    for (const auto& part : opcode) text += (text.empty() ? "" : ".") + part;
    return text;
}

const Function* ParsedModule::find(const std::string& name) const {
    const Function* found = nullptr;
    for (const auto& f : functions)
        if (f.name == name && (!found || !f.is_extern)) found = &f;
    return found;
}

namespace {

bool is_word_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%'; }
bool is_word(char c) { return is_word_start(c) || std::isdigit(static_cast<unsigned char>(c)); }

unsigned type_bytes(const std::string& type) {
    static const std::map<std::string, unsigned> bytes = {
        {"pred", 1}, {"b8", 1},  {"u8", 1},  {"s8", 1},  {"b16", 2}, {"u16", 2}, {"s16", 2}, {"f16", 2},
        {"bf16", 2}, {"b32", 4}, {"u32", 4}, {"s32", 4}, {"f32", 4}, {"f16x2", 4}, {"bf16x2", 4},
        {"b64", 8},  {"u64", 8}, {"s64", 8}, {"f64", 8}, {"b128", 16}};
    const auto it = bytes.find(type);
    return it == bytes.end() ? 0 : it->second;
}

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {
        size_t start = 0;
        while (start <= text.size()) {
            size_t end = text.find('\n', start);
            if (end == std::string_view::npos) end = text.size();
            module_.lines.emplace_back(text.substr(start, end - start));
            start = end + 1;
        }
    }

    ParsedModule run() {
        for (skip_space(); !at_end(); skip_space()) top_level();
        return std::move(module_);
    }

private:
    // ---- characters ---------------------------------------------------------------------------
    bool at_end() const { return pos_ >= text_.size() || text_[pos_] == '\0'; }
    char peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0'; }
    void bump() { if (text_[pos_++] == '\n') ++line_; }
    [[noreturn]] void fail(const std::string& message) const { throw PtxError(line_, message); }

    void skip_space() {
        while (!at_end()) {
            const char c = peek();
            if (std::isspace(static_cast<unsigned char>(c))) bump();
            else if (c == '/' && peek(1) == '/') while (!at_end() && peek() != '\n') bump();
            else if (c == '/' && peek(1) == '*') {
                while (!at_end() && !(peek() == '*' && peek(1) == '/')) bump();
                if (at_end()) fail("unterminated comment");
                bump(); bump();
            } else break;
        }
    }
    bool accept(char c) {
        skip_space();
        if (peek() != c) return false;
        bump();
        return true;
    }
    void expect(char c) {
        if (!accept(c)) fail(std::string("expected '") + c + "' before '" + std::string(text_.substr(pos_, 20)) + "'");
    }
    std::string word() {
        skip_space();
        if (!is_word_start(peek())) fail("expected a name before '" + std::string(text_.substr(pos_, 20)) + "'");
        const size_t start = pos_;
        while (is_word(peek())) bump();
        return std::string(text_.substr(start, pos_ - start));
    }
    // A dotted directive or opcode: letters, digits, '.', '_' and '::'.
    std::string dotted() {
        skip_space();
        const size_t start = pos_;
        while (true) {
            const char c = peek();
            if (is_word(c) || c == '.') bump();
            else if (c == ':' && peek(1) == ':') { bump(); bump(); }
            else break;
        }
        if (pos_ == start) fail("expected an instruction before '" + std::string(text_.substr(pos_, 20)) + "'");
        return std::string(text_.substr(start, pos_ - start));
    }
    void skip_line() { while (!at_end() && peek() != '\n') bump(); }
    void skip_to(char c) { while (!at_end() && peek() != c) bump(); if (!at_end()) bump(); }
    void skip_braces() {
        expect('{');
        for (int depth = 1; depth; bump()) {
            if (at_end()) fail("unterminated '{'");
            if (peek() == '{') ++depth;
            if (peek() == '}') --depth;
        }
    }

    // ---- numbers ------------------------------------------------------------------------------
    Operand number() {
        Operand op;
        skip_space();
        bool negative = false;
        if (peek() == '-') { negative = true; bump(); skip_space(); }
        const char* begin = text_.data() + pos_;
        if (peek() == '0' && (peek(1) == 'f' || peek(1) == 'F' || peek(1) == 'd' || peek(1) == 'D')) {
            const bool is32 = peek(1) == 'f' || peek(1) == 'F';
            const int digits = is32 ? 8 : 16;
            op.kind = Operand::Kind::Float;
            op.float_bits = is32 ? 32 : 64;
            op.bits = std::strtoull(std::string(begin + 2, digits).c_str(), nullptr, 16);
            if (negative) op.bits ^= is32 ? 0x80000000ull : 0x8000000000000000ull;
            pos_ += 2 + digits;
            return op;
        }
        size_t n = 0;
        bool is_float = false;
        const bool hex = peek() == '0' && (peek(1) == 'x' || peek(1) == 'X');
        if (hex) n = 2;
        while (std::isalnum(static_cast<unsigned char>(begin[n])) || begin[n] == '.' ||
               ((begin[n] == '-' || begin[n] == '+') && !hex && (begin[n - 1] == 'e' || begin[n - 1] == 'E'))) {
            if (begin[n] == '.' || (!hex && (begin[n] == 'e' || begin[n] == 'E'))) is_float = true;
            ++n;
        }
        if (n == 0) fail("expected a number before '" + std::string(text_.substr(pos_, 20)) + "'");
        const std::string digits(begin, n);
        pos_ += n;
        if (is_float) {
            const double value =
                negative ? -std::strtod(digits.c_str(), nullptr) : std::strtod(digits.c_str(), nullptr);
            op.kind = Operand::Kind::Float;
            op.float_bits = 64;
            std::memcpy(&op.bits, &value, 8);
            return op;
        }
        op.kind = Operand::Kind::Integer;
        const bool binary = digits.size() > 2 && digits[0] == '0' && (digits[1] == 'b' || digits[1] == 'B');
        op.bits = binary ? std::strtoull(digits.c_str() + 2, nullptr, 2) : std::strtoull(digits.c_str(), nullptr, 0);
        if (negative) op.bits = ~op.bits + 1;
        return op;
    }
    int64_t integer() {
        Operand op = number();
        if (op.kind != Operand::Kind::Integer) fail("expected an integer");
        return static_cast<int64_t>(op.bits);
    }

    // ---- operands -----------------------------------------------------------------------------
    Operand named() {
        Operand op;
        op.name = word();
        if (op.name == "_") { op.kind = Operand::Kind::Sink; op.name.clear(); }
        else {
            op.kind = op.name[0] == '%' || is_register(op.name) ? Operand::Kind::Register : Operand::Kind::Symbol;
            while (peek() == '.') {   // %tid.x
                bump();
                op.name += "." + word();
            }
        }
        skip_space();
        if (peek() == '|') {
            bump();
            op.second = word();
            skip_space();
        } else if (op.kind == Operand::Kind::Symbol && (peek() == '+' || peek() == '-')) {
            if (peek() == '+') bump();
            op.offset = integer();
        }
        return op;
    }
    bool is_register(const std::string& name) const {
        if (!function_) return false;
        for (int s = scope_; s >= 0; s = function_->scopes[static_cast<size_t>(s)].parent) {
            const Scope& scope = function_->scopes[static_cast<size_t>(s)];
            if (scope.registers.count(name)) return true;
            size_t digits = name.size();
            while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
            if (digits < name.size() && scope.ranges.count(name.substr(0, digits))) return true;
        }
        return false;
    }
    Operand operand() {
        skip_space();
        const char c = peek();
        Operand op;
        if (c == '{') {
            bump();
            op.kind = Operand::Kind::Vector;
            if (accept('}')) return op;
            do op.parts.push_back(operand()); while (accept(','));
            expect('}');
            skip_space();
            if (peek() == '|') { bump(); op.second = word(); }
            return op;
        }
        if (c == '[') {
            bump();
            op.kind = Operand::Kind::Address;
            skip_space();
            if (is_word_start(peek())) op.name = word();
            else op.offset = integer();
            while (true) {
                skip_space();
                if (accept('+')) op.offset += integer();
                else if (peek() == '-') op.offset += integer();
                else break;
            }
            while (accept(',')) op.parts.push_back(operand());
            expect(']');
            return op;
        }
        if (c == '!') {
            bump();
            op = named();
            op.negated = true;
            return op;
        }
        if (is_word_start(c)) return named();
        return number();
    }

    // ---- declarations -------------------------------------------------------------------------
    uint32_t number_list_item() { return static_cast<uint32_t>(integer()); }

    // After `.space`: `.align 4 .b8 name[16] = {...}`; several names may follow, split by commas.
    void variables(const std::string& space, bool is_extern, std::vector<Variable>& out, char terminator) {
        Variable proto;
        proto.space = space;
        proto.is_extern = is_extern;
        proto.scope = scope_;
        unsigned element = 0, vector = 1;
        skip_space();
        while (peek() == '.') {
            const std::string d = dotted();
            if (d == ".align") proto.align = number_list_item();
            else if (d == ".v2") vector = 2;
            else if (d == ".v4") vector = 4;
            else if (d == ".ptr" || d == ".global" || d == ".shared" || d == ".local" || d == ".const" ||
                     d == ".attribute") {
                if (d == ".attribute") { expect('('); skip_to(')'); }   // facts about a pointer: nothing to execute
            } else {
                element = type_bytes(d.substr(1));
                if (!element) fail("unknown type " + d + " in a declaration");
            }
            skip_space();
        }
        if (proto.align < element) proto.align = element;
        do {
            Variable v = proto;
            v.line = line_;
            v.name = word();
            uint64_t count = vector;
            bool open_array = false;
            skip_space();
            if (peek() == '<') fail("parameterised variable names are not supported: " + v.name);
            while (accept('[')) {
                if (accept(']')) { open_array = true; continue; }
                count *= static_cast<uint64_t>(integer());
                expect(']');
            }
            if (accept('=')) initialiser(v, element);
            v.size = open_array ? v.init.size() : count * element;
            if (!v.init.empty()) v.init.resize(v.size);
            out.push_back(std::move(v));
        } while (terminator == ';' && accept(','));
        if (terminator == ';') expect(';');
    }
    void put_value(Variable& v, unsigned element) {
        skip_space();
        if (accept('{')) {
            if (accept('}')) return;
            do put_value(v, element); while (accept(','));
            expect('}');
            return;
        }
        if (peek() == '"') {
            bump();
            while (peek() != '"') { v.init.push_back(static_cast<uint8_t>(peek())); bump(); }
            bump();
            v.init.push_back(0);
            return;
        }
        if (is_word_start(peek())) {
            std::string symbol = word();
            if (symbol == "generic") { expect('('); symbol = word(); expect(')'); }
            v.references.push_back({v.init.size(), symbol});
            v.init.resize(v.init.size() + element);
            return;
        }
        Operand op = number();
        if (op.kind == Operand::Kind::Float && element == 4 && op.float_bits == 64) {
            double d; std::memcpy(&d, &op.bits, 8);
            const float f = static_cast<float>(d);
            uint32_t bits; std::memcpy(&bits, &f, 4);
            op.bits = bits;
        }
        for (unsigned i = 0; i < element; ++i) v.init.push_back(static_cast<uint8_t>(op.bits >> (8 * i)));
    }
    void initialiser(Variable& v, unsigned element) { put_value(v, element); }

    void parameters(std::vector<Variable>& out) {
        if (accept(')')) return;
        do {
            const std::string space = dotted();
            if (space == ".param") variables("param", false, out, ')');
            else if (space.rfind(".reg", 0) == 0) fail("register parameters (old ABI) are not supported");
            else fail("expected .param, found " + space);
        } while (accept(','));
        expect(')');
    }

    // ---- top level ----------------------------------------------------------------------------
    void top_level() {
        bool is_extern = false;
        while (true) {
            const int at = line_;
            const std::string d = dotted();
            if (d == ".version") { skip_line(); return; }
            if (d == ".target") {
                skip_space();
                const size_t start = pos_;
                skip_line();
                std::string rest(text_.substr(start, pos_ - start));
                module_.target = rest.substr(0, rest.find_first_of(", \t\r/"));
                return;
            }
            if (d == ".address_size") {
                if (integer() != 64) fail("only 64-bit addresses are supported");
                return;
            }
            if (d == ".file") { file(); return; }
            if (d == ".loc") { skip_line(); return; }
            if (d == ".pragma" || d == ".alias") { skip_to(';'); return; }
            if (d == ".section") { while (peek() != '{') bump(); skip_braces(); return; }
            if (d == ".visible" || d == ".weak" || d == ".common") { skip_space(); continue; }
            if (d == ".extern") { is_extern = true; skip_space(); continue; }
            if (d == ".global" || d == ".shared" || d == ".const") {
                variables(d.substr(1), is_extern, module_.variables, ';');
                return;
            }
            if (d == ".entry" || d == ".func") { function(d == ".entry", is_extern, at); return; }
            fail("unknown directive " + d);
        }
    }

    void function(bool is_entry, bool is_extern, int at) {
        Function f;
        f.is_entry = is_entry;
        f.is_extern = is_extern;
        f.line = at;
        f.scopes.emplace_back();
        skip_space();
        if (peek() == '(') { bump(); parameters(f.returns); }
        f.name = word();
        if (accept('(')) parameters(f.params);
        skip_space();
        while (peek() == '.') {
            const std::string d = dotted().substr(1);
            std::vector<uint32_t>& values = f.directives[d];
            skip_space();
            while (std::isdigit(static_cast<unsigned char>(peek()))) {
                values.push_back(number_list_item());
                if (!accept(',')) break;
                skip_space();
            }
            if (d == "pragma") skip_to(';');
            skip_space();
        }
        if (accept(';')) { f.is_extern = true; module_.functions.push_back(std::move(f)); return; }
        module_.functions.push_back(std::move(f));
        function_ = &module_.functions.back();
        scope_ = 0;
        expect('{');
        while (true) {
            skip_space();
            if (at_end()) fail("unterminated function " + function_->name);
            if (accept('}')) {
                if (scope_ == 0) break;
                scope_ = scope().parent;
            } else statement();
        }
        function_ = nullptr;
    }

    Scope& scope() { return function_->scopes[static_cast<size_t>(scope_)]; }

    void statement() {
        if (accept(';')) return;   // an empty statement, as inline asm likes to leave behind
        if (accept('{')) {
            Scope inner;
            inner.parent = scope_;
            function_->scopes.push_back(inner);
            scope_ = static_cast<int>(function_->scopes.size()) - 1;
            return;
        }
        if (peek() == '.') { local_directive(); return; }
        if (peek() != '@' && is_label()) return;
        instruction();
    }
    bool is_label() {
        const size_t start = pos_;
        const int start_line = line_;
        if (!is_word_start(peek())) return false;
        const std::string name = word();
        skip_space();
        if (peek() == ':' && peek(1) != ':') {
            bump();
            skip_space();
            if (peek() == '.' && text_.substr(pos_, 14) == ".branchtargets") {
                dotted();
                auto& targets = function_->branch_targets[name];
                do targets.push_back(word()); while (accept(','));
                expect(';');
                return true;
            }
            if (peek() == '.' && text_.substr(pos_, 14) == ".callprototype") { skip_to(';'); return true; }
            if (!scope().labels.emplace(name, function_->body.size()).second) fail("label " + name + " defined twice");
            return true;
        }
        pos_ = start;
        line_ = start_line;
        return false;
    }
    void local_directive() {
        const std::string d = dotted();
        if (d == ".loc") { location(); return; }
        if (d == ".pragma") { skip_to(';'); return; }
        if (d == ".reg") { registers(); return; }
        if (d == ".local" || d == ".shared" || d == ".param") {
            const size_t first = function_->variables.size();
            variables(d.substr(1), false, function_->variables, ';');
            for (size_t i = first; i < function_->variables.size(); ++i)
                scope().variables[function_->variables[i].name] = i;
            return;
        }
        if (d == ".branchtargets" || d == ".calltargets") { skip_to(';'); return; }
        fail("unknown directive " + d + " inside a function");
    }
    void location() {   // .loc file line column, and perhaps where it was inlined
        file_ = number_list_item();
        file_line_ = number_list_item();
        file_column_ = number_list_item();
        skip_line();
    }
    void file() {   // .file number "name"
        const auto number = static_cast<uint32_t>(number_list_item());
        skip_space();
        const size_t start = pos_;
        skip_line();
        const std::string_view rest = text_.substr(start, pos_ - start);
        const size_t open = rest.find('"'), close = rest.rfind('"');
        if (open == std::string_view::npos || close <= open) return;
        const std::string name(rest.substr(open + 1, close - open - 1));
        module_.files[number] = name.substr(name.rfind('/') + 1);
    }
    void registers() {
        skip_space();
        const std::string type = dotted().substr(1);
        if (!type_bytes(type)) fail("unknown register type ." + type);
        do {
            const std::string name = word();
            if (accept('<')) {
                scope().ranges[name] = {number_list_item(), type};
                expect('>');
            } else scope().registers[name] = type;
        } while (accept(','));
        expect(';');
    }
    void instruction() {
        ParsedInstr in;
        in.scope = scope_;
        if (accept('@')) {
            if (accept('!')) in.guard_negated = true;
            in.guard = word();
            skip_space();
        }
        in.line = line_;
        in.file = file_;
        in.file_line = file_line_;
        in.file_column = file_column_;
        const std::string op = dotted();
        for (size_t start = 0; start <= op.size();) {
            size_t end = op.find('.', start);
            if (end == std::string::npos) end = op.size();
            in.opcode.push_back(op.substr(start, end - start));
            start = end + 1;
        }
        if (in.opcode[0] == "call") call_operands(in);
        else if (!accept(';')) {
            do in.operands.push_back(operand()); while (accept(','));
            expect(';');
        }
        function_->body.push_back(std::move(in));
    }
    void operand_list(std::vector<Operand>& out) {
        expect('(');
        if (accept(')')) return;
        do out.push_back(operand()); while (accept(','));
        expect(')');
    }
    void call_operands(ParsedInstr& in) {
        skip_space();
        if (peek() == '(') { operand_list(in.call_returns); expect(','); }
        in.operands.push_back(operand());
        if (accept(',')) {
            skip_space();
            if (peek() == '(') operand_list(in.call_args);
            while (accept(',')) in.operands.push_back(operand());   // prototype of an indirect call
        }
        expect(';');
    }

    std::string_view text_;
    size_t pos_ = 0;
    int line_ = 1;
    uint32_t file_ = 0, file_line_ = 0, file_column_ = 0;   // of the latest .loc
    ParsedModule module_;
    Function* function_ = nullptr;
    int scope_ = 0;
};

}  // namespace

ParsedModule parse_ptx(std::string_view text) {
    // A terminating zero may be part of the bytes the driver is handed.
    const size_t end = text.find('\0');
    const std::string copy(text.substr(0, end));
    return Parser(copy).run();
}

}  // namespace softgpu
