// Loops that are compiled once for each width of vector; which is taken is chosen when the addon is loaded. Knows neither libtorch nor Node.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DSD_VECTOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DSD_VECTOR
#endif
