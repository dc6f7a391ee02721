// The list of opcode tables. A new table is one more line in kTables.
#include <map>

#include "machine.h"
#include "tables.h"

namespace softgpu {

namespace {

struct Table { const OpRow* rows; size_t count; };
const Table kTables[] = {
    {kArithmeticOps, kArithmeticOpCount},
    {kFloatOps, kFloatOpCount},
    {kBitOps, kBitOpCount},
    {kCompareOps, kCompareOpCount},
    {kConvertOps, kConvertOpCount},
    {kMoveOps, kMoveOpCount},
    {kMemoryOps, kMemoryOpCount},
    {kAtomicOps, kAtomicOpCount},
    {kWarpOps, kWarpOpCount},
    {kControlOps, kControlOpCount},
    {kCpAsyncOps, kCpAsyncOpCount},
    {kMatrixOps, kMatrixOpCount},
    {kMmaOps, kMmaOpCount},
    {kMbarrierOps, kMbarrierOpCount},
    {kBulkOps, kBulkOpCount},
    {kProxyOps, kProxyOpCount},
    {kClusterOps, kClusterOpCount},
    {kWgmmaOps, kWgmmaOpCount},
    {kTcgen05Ops, kTcgen05OpCount},
    {kTcgen05MmaOps, kTcgen05MmaOpCount},
};

const std::map<std::string, const OpRow*>& index() {
    static const std::map<std::string, const OpRow*> map = [] {
        std::map<std::string, const OpRow*> m;
        for (const auto& table : kTables)
            for (size_t i = 0; i < table.count; ++i) m[table.rows[i].name] = &table.rows[i];
        return m;
    }();
    return map;
}

}  // namespace

const OpRow* find_op(const std::vector<std::string>& opcode, size_t& parts_used) {
    const OpRow* best = nullptr;
    std::string prefix;
    for (size_t i = 0; i < opcode.size(); ++i) {
        prefix += (i ? "." : "") + opcode[i];
        if (const auto it = index().find(prefix); it != index().end()) {
            best = it->second;
            parts_used = i + 1;
        }
    }
    return best;
}

std::vector<std::string> opcode_families() {
    std::vector<std::string> names;
    for (const auto& [name, row] : index()) names.push_back(name);
    return names;
}

}  // namespace softgpu
