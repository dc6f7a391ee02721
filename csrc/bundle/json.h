// JSON as a bundle's manifest has it: a value, and a parser that refuses what is malformed or nested too deep.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace helion {

struct Json {
  enum class Kind { kNull, kBool, kInt, kReal, kText, kList, kObject } kind = Kind::kNull;
  int64_t integer = 0;  // kBool, kInt
  double real = 0;
  std::string text;
  std::vector<Json> items;                          // kList
  std::vector<std::pair<std::string, Json>> fields;  // kObject

  const Json& at(const char* name) const {
    for (const auto& [key, value] : fields) {
      if (key == name) return value;
    }
    throw std::runtime_error(std::string("its manifest has no ") + name);
  }
  const Json& at(size_t index) const {
    if (kind != Kind::kList || index >= items.size()) throw std::runtime_error("a list of its manifest is too short");
    return items[index];
  }
  int64_t number() const {
    if (kind != Kind::kInt) throw std::runtime_error("its manifest lacks a number");
    return integer;
  }
  bool truth() const {
    if (kind != Kind::kBool) throw std::runtime_error("its manifest lacks a truth value");
    return integer != 0;
  }
  bool is(const char* word) const { return kind == Kind::kText && text == word; }
};

class JsonParser {
 public:
  JsonParser(const char* begin, const char* end) : at_(begin), end_(end) {}

  Json parse() {
    Json value = read(0);
    space();
    if (at_ != end_) fail();
    return value;
  }

 private:
  [[noreturn]] static void fail() { throw std::runtime_error("its manifest is not JSON"); }
  void space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }
  char next() {
    if (at_ == end_) fail();
    return *at_++;
  }
  void word(const char* text) {
    for (; *text != '\0'; ++text) {
      if (next() != *text) fail();
    }
  }
  bool more(char close) {  // after an item: whether another follows
    space();
    const char found = next();
    if (found == close) return false;
    if (found != ',') fail();
    return true;
  }

  std::string text() {
    std::string found;
    if (next() != '"') fail();
    for (char c = next(); c != '"'; c = next()) {
      if (c != '\\') {
        found += c;
        continue;
      }
      c = next();
      if (c == 'u') {  // names of kernels and types are ASCII; what is not compares unequal
        for (int i = 0; i < 4; ++i) next();
        found += '?';
      } else {
        found += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c;
      }
    }
    return found;
  }

  Json number() {
    std::string digits;
    while (at_ != end_ && ((*at_ >= '0' && *at_ <= '9') || *at_ == '-' || *at_ == '+' || *at_ == '.' || *at_ == 'e' ||
                           *at_ == 'E')) {
      digits += *at_++;
    }
    if (digits.empty() || digits.size() > 400) fail();
    Json value;
    char* stop = nullptr;
    const bool whole = digits.find_first_of(".eE") == std::string::npos && digits.size() < 19;
    value.kind = whole ? Json::Kind::kInt : Json::Kind::kReal;
    if (whole) {
      value.integer = std::strtoll(digits.c_str(), &stop, 10);
    } else {
      value.real = std::strtod(digits.c_str(), &stop);
    }
    if (*stop != '\0') fail();
    return value;
  }

  Json read(int depth) {
    if (depth > 64) fail();
    space();
    if (at_ == end_) fail();
    Json value;
    switch (*at_) {
      case '{':
        ++at_;
        value.kind = Json::Kind::kObject;
        space();
        if (at_ != end_ && *at_ == '}') return ++at_, value;
        do {
          space();
          std::string key = text();
          space();
          word(":");
          value.fields.emplace_back(std::move(key), read(depth + 1));
        } while (more('}'));
        return value;
      case '[':
        ++at_;
        value.kind = Json::Kind::kList;
        space();
        if (at_ != end_ && *at_ == ']') return ++at_, value;
        do value.items.push_back(read(depth + 1));
        while (more(']'));
        return value;
      case '"':
        value.kind = Json::Kind::kText;
        value.text = text();
        return value;
      case 't':
      case 'f':
        value.kind = Json::Kind::kBool;
        value.integer = *at_ == 't';
        word(*at_ == 't' ? "true" : "false");
        return value;
      case 'n':
        word("null");
        return value;
      default:
        return number();
    }
  }

  const char* at_;
  const char* end_;
};

}  // namespace helion
