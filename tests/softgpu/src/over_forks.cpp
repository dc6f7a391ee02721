#include "over_forks.h"

#include <pthread.h>

namespace softgpu {

namespace {
constexpr int kCount = static_cast<int>(ForkOrder::kCount);
std::mutex* g_held[kCount];   // plain zeros before any constructor runs

std::mutex* g_taken[kCount];  // by the fork that is under way

void hold() {
    for (int i = 0; i < kCount; ++i)
        if ((g_taken[i] = g_held[i])) g_taken[i]->lock();
}
void let_go() {
    for (int i = kCount; i-- > 0;)
        if (g_taken[i]) g_taken[i]->unlock();
}
}  // namespace

void hold_over_forks(std::mutex& mutex, ForkOrder place) {
    static const int registered = pthread_atfork(hold, let_go, let_go);
    (void)registered;
    g_held[static_cast<int>(place)] = &mutex;
}

}  // namespace softgpu
