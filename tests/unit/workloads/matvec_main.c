/* Runs one product of matvec.c: FORMAT COUNT OUTPUTS INPUTS SCALES are arguments; weights, scales and
 * vectors come from standard input, and the results go to standard output.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNPACKED(FORMAT, ELEMENT)                                                                  \
    void matvec_##FORMAT(const ELEMENT *, const float *, float *, long, long, long);
#define PACKED(FORMAT)                                                                             \
    void matvec_##FORMAT(const uint32_t *, const float *, const float *, float *, long, long, long);

UNPACKED(fp32, float)
UNPACKED(bf16, uint16_t)
PACKED(int8)
PACKED(int4_32)
PACKED(int4_64)

static void *from_input(size_t bytes)
{
    void *array = malloc(bytes + 1);
    if (array == NULL || fread(array, 1, bytes, stdin) != bytes)
        exit(2);
    return array;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    const char *format = argv[1];
    long count = atol(argv[2]), outputs = atol(argv[3]), inputs = atol(argv[4]);
    long bits = !strcmp(format, "fp32") ? 32 : !strcmp(format, "bf16") ? 16 : format[3] - '0';
    void *weight = from_input(outputs * inputs * bits / 8);
    float *scales = from_input(atol(argv[5]) * sizeof(float));
    float *vectors = from_input(count * inputs * sizeof(float));
    float *results = malloc(count * outputs * sizeof(float));

    if (!strcmp(format, "fp32"))
        matvec_fp32(weight, vectors, results, count, outputs, inputs);
    else if (!strcmp(format, "bf16"))
        matvec_bf16(weight, vectors, results, count, outputs, inputs);
    else if (!strcmp(format, "int8"))
        matvec_int8(weight, scales, vectors, results, count, outputs, inputs);
    else if (!strcmp(format, "int4_32"))
        matvec_int4_32(weight, scales, vectors, results, count, outputs, inputs);
    else
        matvec_int4_64(weight, scales, vectors, results, count, outputs, inputs);
    return fwrite(results, sizeof(float), count * outputs, stdout) != (size_t)(count * outputs);
}
