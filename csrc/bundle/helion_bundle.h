/* Bundles of kernels (docs/shipping.md) without Python: load a file, look a call up, launch it.
 *
 * Needs the CUDA driver and nothing else. Every function works in the context that is current in the calling thread; a
 * plan belongs to the context in which it was found first. Functions that fail return NULL or nonzero and put a text
 * into `error`, which holds HELION_ERROR_SIZE bytes. A bundle may be used by several threads if each call of
 * helion_bundle_find is made by one at a time; helion_plan_launch may be called by any number.
 */
#ifndef HELION_BUNDLE_H
#define HELION_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HELION_ERROR_SIZE 256

typedef struct helion_bundle helion_bundle;
typedef struct helion_plan helion_plan;

typedef enum { HELION_TENSOR, HELION_INT, HELION_FLOAT, HELION_BOOL, HELION_NONE } helion_kind;

/* One argument of a kernel function, in the order of its parameters. */
typedef struct {
  helion_kind kind;
  uint64_t address;       /* HELION_TENSOR: of the first element, in the GPU's memory */
  const char* dtype;      /* HELION_TENSOR: PyTorch's name, "float32" */
  int rank;               /* HELION_TENSOR */
  const int64_t* sizes;   /* HELION_TENSOR: `rank` of them, in elements */
  const int64_t* strides; /* HELION_TENSOR: as many */
  int64_t integer;        /* HELION_INT, HELION_BOOL */
  double real;            /* HELION_FLOAT */
} helion_argument;

/* Map a bundle read-only and check its description; each binary is checked when it is first used. */
helion_bundle* helion_bundle_open(const char* path, char* error);
/* Unload its binaries; plans of it may not be used any more. */
void helion_bundle_close(helion_bundle* bundle);

/* The plan for calls like this one. `kernel` is module and name, "model.rms_norm"; `capability` is 90 for sm_90. NULL
 * if the bundle has none, or one that needs more than this library does: operations of PyTorch's, tensor maps. */
const helion_plan* helion_bundle_find(helion_bundle* bundle, const char* kernel, int capability,
                                      const helion_argument* arguments, int count, char* error);

/* Memory that a call needs beside its arguments, outputs included: how many buffers, and bytes of each. */
int helion_plan_buffer_count(const helion_plan* plan);
size_t helion_plan_buffer_bytes(const helion_plan* plan, int buffer);
/* The buffer that is the result of the call, if that is one tensor that the call makes; else -1. */
int helion_plan_result(const helion_plan* plan);

/* Enqueue the call on `stream` (a CUstream). `arguments` are as they were looked up but for addresses (aligned to 16
 * bytes as they were) and numbers of the same kind; `buffers` are addresses in the GPU's memory, multiples of 16. */
int helion_plan_launch(const helion_plan* plan, const helion_argument* arguments, const uint64_t* buffers, void* stream,
                       char* error);

#ifdef __cplusplus
}
#endif
#endif
