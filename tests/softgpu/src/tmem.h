// Tensor memory of a CTA: 128 lanes x 512 columns of 32 bits, allocated in columns, with the state of every cell.
//
// An address is lane << 16 | column. State is kept for 16 lanes together: no instruction touches fewer.
#pragma once
#include "mbarrier.h"

namespace softgpu {

constexpr uint32_t kTmemLanes = 128, kTmemColumns = 512, kTmemGroupLanes = 16,
                   kTmemGroups = kTmemLanes / kTmemGroupLanes;

enum class TmemState : uint8_t {
    Unwritten,
    Valid,
    Matrix,   // an MMA in flight writes it
    Store     // a tcgen05.st that no tcgen05.wait::st has followed
};

struct Tmem {
    Tmem();
    std::vector<uint32_t> words;              // [column][lane]: a column's lanes are neighbours
    struct Cell { TmemState state = TmemState::Unwritten; uint32_t writer = 0; };
    std::vector<Cell> cells;                  // [column][group]
    std::array<uint16_t, kTmemColumns> allocation{};   // by column: number of its allocation, 0 if free
    uint16_t allocations = 0;                 // so far
    bool permit_given_up = false;
    uint32_t pair_allocations = 0, pair_deallocations = 0;   // collective ones this CTA has come to

    uint32_t* column(uint32_t c) { return words.data() + size_t(c) * kTmemLanes; }
    Cell& cell(uint32_t column, uint32_t group) { return cells[size_t(column) * kTmemGroups + group]; }
};
Tmem& tmem(Cta& cta);

inline uint32_t tmem_lane(uint32_t address) { return address >> 16; }
inline uint32_t tmem_column(uint32_t address) { return address & 0xffffu; }
std::string tmem_place(uint32_t lane, uint32_t column);   // "lanes 16-31, column 7 of TMEM"

// Faults unless the columns are allocated and exist.
void require_allocated(const Issuer& by, Cta& cta, uint32_t column, uint32_t columns);
// Faults unless 16 lanes of a column may be read by an instruction that is no MMA. `lane`: any of them.
void require_tmem_readable(const Issuer& by, Cta& cta, uint32_t lane, uint32_t column);

}  // namespace softgpu
