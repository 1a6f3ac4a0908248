/* Products of a weight matrix with few vectors, written to read the weights at memory speed.
 *
 * Weights are (outputs, inputs), row by row; vectors (count, inputs) and results (count, outputs)
 * are fp32. A row is read from memory once and meets every vector while it is in the cache.
 * Independent sums, one per lane, let any compiler vectorize without reordering arithmetic.
 */
#include <stdint.h>
#include <string.h>

#define LANES 32

static inline float total(float *sums, int lanes)
{
    for (int half = lanes / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            sums[lane] += sums[lane + half];
    return sums[0];
}

static inline float from_fp32(float value) { return value; }
static inline float from_bf16(uint16_t upper)
{
    uint32_t bits = (uint32_t)upper << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#define DOT(FORMAT, ELEMENT)                                                                       \
    static inline float dot_##FORMAT(const ELEMENT *row, const float *vector, long inputs)         \
    {                                                                                              \
        float sums[LANES] = {0};                                                                   \
        long whole = inputs - inputs % LANES;                                                      \
        for (long i = 0; i < whole; i += LANES)                                                    \
            for (int lane = 0; lane < LANES; lane++)                                               \
                sums[lane] += from_##FORMAT(row[i + lane]) * vector[i + lane];                     \
        for (long i = whole; i < inputs; i++)                                                      \
            sums[i - whole] += from_##FORMAT(row[i]) * vector[i];                                  \
        return total(sums, LANES);                                                                 \
    }                                                                                              \
    void matvec_##FORMAT(const ELEMENT *weight, const float *vectors, float *results, long count,  \
                         long outputs, long inputs)                                                \
    {                                                                                              \
        _Pragma("omp parallel for schedule(static)") for (long o = 0; o < outputs; o++)            \
            for (long v = 0; v < count; v++)                                                       \
                results[v * outputs + o] =                                                         \
                    dot_##FORMAT(weight + o * inputs, vectors + v * inputs, inputs);               \
    }

DOT(fp32, float)
DOT(bf16, uint16_t)

/* Integers are packed in blocks of 16 words of 32 bits: field k of word w is weight 16 k + w of the
 * block, in two's complement, so that two shifts of the words give 16 neighbours with their signs.
 */
#define WORDS 16
#define BYTES 4
#define NIBBLES 8

/* A block is some vectors as wide as the registers: wider ones have no place in the ABI of a CPU
 * that lacks the registers (-Wpsabi), and compilers take them apart into slow code.
 */
#if defined __AVX512F__
#define REGISTER 64
#elif defined __AVX2__
#define REGISTER 32
#else
#define REGISTER 16
#endif
#define PARTS (WORDS * 4 / REGISTER)

typedef uint32_t words __attribute__((vector_size(REGISTER), aligned(4)));
typedef int32_t integers __attribute__((vector_size(REGISTER), aligned(4)));
typedef float floats __attribute__((vector_size(REGISTER), aligned(4)));

static inline floats field(words packed, int bits, int index)
{
    integers top = (integers)(packed << (32 - bits * (index + 1)));
    return __builtin_convertvector(top >> (32 - bits), floats);
}

/* One scale per row. */
static inline float dot_int8(const words *row, const float *scale, const floats *vector, long inputs)
{
    floats even[PARTS] = {{0}}, odd[PARTS] = {{0}};
    for (long block = 0; block < inputs / (WORDS * BYTES); block++)
        for (int part = 0; part < PARTS; part++) {
            words packed = row[block * PARTS + part];
            const floats *factors = vector + block * BYTES * PARTS + part;
            for (int index = 0; index < BYTES; index += 2) {
                even[part] += field(packed, 8, index) * factors[index * PARTS];
                odd[part] += field(packed, 8, index + 1) * factors[(index + 1) * PARTS];
            }
        }
    for (int part = 0; part < PARTS; part++)
        even[part] += odd[part];
    return total((float *)even, WORDS) * *scale;
}

/* One scale for each `span` fields of all words of a block. */
static inline float dot_int4(const words *row, const float *scales, const floats *vector,
                             long inputs, const int span)
{
    floats sums[PARTS] = {{0}};
    for (long block = 0; block < inputs / (WORDS * NIBBLES); block++, scales += NIBBLES / span)
        for (int part = 0; part < PARTS; part++) {
            words packed = row[block * PARTS + part];
            const floats *factors = vector + block * NIBBLES * PARTS + part;
            for (int first = 0; first < NIBBLES; first += span) {
                floats sum = field(packed, 4, first) * factors[first * PARTS];
                for (int index = first + 1; index < first + span; index++)
                    sum += field(packed, 4, index) * factors[index * PARTS];
                sums[part] += scales[first / span] * sum;
            }
        }
    return total((float *)sums, WORDS);
}

static inline float dot_int4_32(const words *row, const float *scales, const floats *vector,
                                long inputs)
{
    return dot_int4(row, scales, vector, inputs, 32 / WORDS);
}

static inline float dot_int4_64(const words *row, const float *scales, const floats *vector,
                                long inputs)
{
    return dot_int4(row, scales, vector, inputs, 64 / WORDS);
}

#define MATVEC_PACKED(FORMAT, FIELDS, SCALES)                                                      \
    void matvec_##FORMAT(const uint32_t *weight, const float *scales, const float *vectors,        \
                         float *results, long count, long outputs, long inputs)                    \
    {                                                                                              \
        _Pragma("omp parallel for schedule(static)") for (long o = 0; o < outputs; o++)            \
            for (long v = 0; v < count; v++)                                                       \
                results[v * outputs + o] = dot_##FORMAT(                                           \
                    (const words *)(weight + o * inputs / FIELDS), scales + o * (SCALES),          \
                    (const floats *)(vectors + v * inputs), inputs);                               \
    }

MATVEC_PACKED(int8, BYTES, 1)
MATVEC_PACKED(int4_32, NIBBLES, inputs / 32)
MATVEC_PACKED(int4_64, NIBBLES, inputs / 64)
