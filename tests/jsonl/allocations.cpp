// This program counts its allocations, too.
#include "alloc/allocation_counter.cpp"
