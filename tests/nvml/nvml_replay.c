/*
 * A libnvidia-ml.so.1 that replays a trace, so that the real NVML binding runs without a GPU.
 *
 * Environment:
 *   NVML_REPLAY_TRACE  CSV file to replay (needed)
 *   NVML_REPLAY_CLOCK  file with the trace's time now, in seconds; without it, time runs by
 *                      itself from the first row on, starting at nvmlInit
 *   NVML_REPLAY_LOOP   1: begin again after the last row; counters go on growing
 *   NVML_REPLAY_HANG   name of a function that never returns
 *   NVML_REPLAY_PIDS   "gpu:pid gpu:pid ...": processes to report in place of the trace's
 *                      (a file's name: read anew at each call)
 *
 * The trace: lines "# device GPU key=value ... name=TEXT", a header with names from COLUMNS, and
 * rows sorted by time for each GPU. A GPU is "0", or "0.1" for a MIG instance of GPU 0: then GPU 0
 * has MIG on, and NVML refuses what it refuses there. An empty
 * cell or a missing column means NOT_SUPPORTED; "lost", "unknown" and "timeout" mean that error.
 * A gauge holds from its row until the next; a counter grows linearly between rows. See README.md.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- The part of NVML's interface that is replayed (names and layouts as in nvml.h) ---- */

typedef enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    UNKNOWN = 999,
} Result;

typedef unsigned int uint;
typedef unsigned long long ulonglong;

typedef struct { uint gpu, memory; } Utilization;
typedef struct { ulonglong total, free, used; } Memory;
typedef struct { uint version; ulonglong total, reserved, free, used; } MemoryV2;
typedef struct { uint pid; ulonglong used_memory; uint gpu_instance, compute_instance; } Process;
typedef union { double real; uint u32; ulonglong u64; } Value;
typedef struct {
    uint field, scope;
    int64_t timestamp, latency;
    uint value_type;
    Result result;
    Value value;
} FieldValue;
enum { TYPE_U32 = 1, TYPE_U64 = 3 };

typedef struct { uint version, supported; } GpmSupport;
typedef struct { char *short_name, *long_name, *unit; } GpmMetricInfo;
typedef struct { uint id; Result result; double value; GpmMetricInfo info; } GpmMetric;

/* ---- Columns ---- */

typedef enum {
    UTILIZATION, MEMORY_UTILIZATION, MEMORY_USED, POWER, ENERGY, TEMPERATURE, MEMORY_TEMPERATURE,
    SM_CLOCK, MEMORY_CLOCK, THROTTLE_REASONS, THROTTLE_POWER_CAP, THROTTLE_SYNC_BOOST,
    THROTTLE_SOFTWARE_THERMAL, THROTTLE_HARDWARE_THERMAL, THROTTLE_POWER_BRAKE, PCIE_TX, PCIE_RX,
    PCIE_REPLAYS, NVLINK_TX, NVLINK_RX, ECC_CORRECTED, ECC_UNCORRECTED, REMAPPED_ROWS,
    REMAP_PENDING, XID, PROCESSES, GPM_GRAPHICS, GPM_SM, GPM_OCCUPANCY, GPM_INTEGER, GPM_TENSOR,
    GPM_DFMA, GPM_HMMA, GPM_IMMA, GPM_DRAM, GPM_FP64, GPM_FP32, GPM_FP16, N_COLUMNS,
} Column;

/* field: id for nvmlDeviceGetFieldValues; metric: id for nvmlGpmMetricsGet; 0 for none */
static const struct { const char *name; int counter, field, metric; uint type; } COLUMNS[] = {
    [UTILIZATION] = {"utilization_percent", 0, 0, 0, 0},
    [MEMORY_UTILIZATION] = {"memory_utilization_percent", 0, 0, 0, 0},
    [MEMORY_USED] = {"memory_used_mib", 0, 0, 0, 0},
    [POWER] = {"power_mw", 0, 0, 0, 0},
    [ENERGY] = {"energy_mj", 1, 83, 0, TYPE_U64},
    [TEMPERATURE] = {"temperature_celsius", 0, 0, 0, 0},
    [MEMORY_TEMPERATURE] = {"memory_temperature_celsius", 0, 82, 0, TYPE_U32},
    [SM_CLOCK] = {"sm_mhz", 0, 0, 0, 0},
    [MEMORY_CLOCK] = {"memory_mhz", 0, 0, 0, 0},
    [THROTTLE_REASONS] = {"throttle_reasons", 0, 0, 0, 0},
    [THROTTLE_POWER_CAP] = {"throttle_power_cap_ns", 1, 74, 0, TYPE_U64},
    [THROTTLE_SYNC_BOOST] = {"throttle_sync_boost_ns", 1, 76, 0, TYPE_U64},
    [THROTTLE_SOFTWARE_THERMAL] = {"throttle_software_thermal_ns", 1, 269, 0, TYPE_U64},
    [THROTTLE_HARDWARE_THERMAL] = {"throttle_hardware_thermal_ns", 1, 270, 0, TYPE_U64},
    [THROTTLE_POWER_BRAKE] = {"throttle_power_brake_ns", 1, 271, 0, TYPE_U64},
    [PCIE_TX] = {"pcie_tx_bytes", 1, 197, 20, TYPE_U64},
    [PCIE_RX] = {"pcie_rx_bytes", 1, 198, 21, TYPE_U64},
    [PCIE_REPLAYS] = {"pcie_replays", 1, 94, 0, TYPE_U32},
    [NVLINK_TX] = {"nvlink_tx_kib", 1, 138, 61, TYPE_U64},
    [NVLINK_RX] = {"nvlink_rx_kib", 1, 139, 60, TYPE_U64},
    [ECC_CORRECTED] = {"ecc_corrected", 1, 0, 0, 0},
    [ECC_UNCORRECTED] = {"ecc_uncorrected", 1, 0, 0, 0},
    [REMAPPED_ROWS] = {"remapped_rows", 0, 0, 0, 0},
    [REMAP_PENDING] = {"remap_pending", 0, 0, 0, 0},
    [XID] = {"xid_events", 1, 0, 0, 0},
    [PROCESSES] = {"processes", 0, 0, 0, 0},
    [GPM_GRAPHICS] = {"gpm_graphics_percent", 0, 0, 1, 0},
    [GPM_SM] = {"gpm_sm_percent", 0, 0, 2, 0},
    [GPM_OCCUPANCY] = {"gpm_occupancy_percent", 0, 0, 3, 0},
    [GPM_INTEGER] = {"gpm_integer_percent", 0, 0, 4, 0},
    [GPM_TENSOR] = {"gpm_tensor_percent", 0, 0, 5, 0},
    [GPM_DFMA] = {"gpm_dfma_percent", 0, 0, 6, 0},
    [GPM_HMMA] = {"gpm_hmma_percent", 0, 0, 7, 0},
    [GPM_IMMA] = {"gpm_imma_percent", 0, 0, 9, 0},
    [GPM_DRAM] = {"gpm_dram_percent", 0, 0, 10, 0},
    [GPM_FP64] = {"gpm_fp64_percent", 0, 0, 11, 0},
    [GPM_FP32] = {"gpm_fp32_percent", 0, 0, 12, 0},
    [GPM_FP16] = {"gpm_fp16_percent", 0, 0, 13, 0},
};

enum { MAX_DEVICES = 64, MAX_CELLS = N_COLUMNS + 2, MAX_LINE = 4096, MAX_PROCESSES = 64 };

typedef struct {
    Result result;
    double value;
    double integral; /* of a gauge, from the first row to this one */
} Cell;

typedef struct { double time; Cell cells[N_COLUMNS]; } Row;

typedef struct Device {
    char index[16]; /* "0", or "0.1" for a MIG instance */
    char name[96], uuid[96];
    double memory_mib, power_limit_mw, sm_max_mhz, pcie_counter_bits, open_error, minor;
    uint gpu_instance, compute_instance;
    double from, until; /* when the instance is there */
    Row *rows;
    size_t n_rows;
} Device;

typedef struct { Device *device; double time; } GpmSample;
typedef struct { uint version, count; GpmSample *first, *second; GpmMetric metrics[]; } GpmRequest;

typedef struct { Device *devices[MAX_DEVICES]; ulonglong seen[MAX_DEVICES]; uint n; } EventSet;
typedef struct {
    Device *device;
    ulonglong type, data;
    uint gpu_instance, compute_instance;
} Event;

static Device devices[MAX_DEVICES];
static size_t n_devices;
static double started_at; /* monotonic clock at nvmlInit */
static int initialized;

/* ---- Reading the trace ---- */

static const char *trace_path;
static int line_number;

static int complain(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "nvml_replay: %s:%d: ", trace_path, line_number);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return 0;
}

static Device *find_device(const char *index) {
    for (size_t i = 0; i < n_devices; i++)
        if (strcmp(devices[i].index, index) == 0) return &devices[i];
    return NULL;
}

static Device *find_or_add_device(const char *index) {
    Device *device = find_device(index);
    if (device != NULL || n_devices == MAX_DEVICES) return device;
    device = &devices[n_devices++];
    *device = (Device){.memory_mib = 81559, .power_limit_mw = 700000, .sm_max_mhz = 1980};
    device->minor = atoi(index);
    device->until = INFINITY;
    const char *dot = strchr(index, '.');
    device->gpu_instance = dot ? (uint)atoi(dot + 1) : 0;
    snprintf(device->index, sizeof device->index, "%s", index);
    snprintf(device->name, sizeof device->name, "Replayed GPU");
    const char *kind = strchr(index, '.') ? "MIG" : "GPU";
    snprintf(device->uuid, sizeof device->uuid, "%s-replay-%s", kind, index);
    return device;
}

static int set_device_option(Device *device, const char *key, const char *value) {
    if (strcmp(key, "memory_mib") == 0) device->memory_mib = atof(value);
    else if (strcmp(key, "power_limit_mw") == 0) device->power_limit_mw = atof(value);
    else if (strcmp(key, "sm_max_mhz") == 0) device->sm_max_mhz = atof(value);
    else if (strcmp(key, "pcie_counter_bits") == 0) device->pcie_counter_bits = atof(value);
    else if (strcmp(key, "open_error") == 0) device->open_error = atof(value);
    else if (strcmp(key, "minor") == 0) device->minor = atof(value);
    else if (strcmp(key, "from") == 0) device->from = atof(value);
    else if (strcmp(key, "until") == 0) device->until = atof(value);
    else if (strcmp(key, "instance") == 0)
        sscanf(value, "%u/%u", &device->gpu_instance, &device->compute_instance);
    else if (strcmp(key, "uuid") == 0) snprintf(device->uuid, sizeof device->uuid, "%s", value);
    else return complain("unknown device option '%s'", key);
    return 1;
}

/* "# device 0 memory_mib=81559 name=NVIDIA H100": the name comes last and may hold spaces */
static int parse_device_line(char *line) {
    char *name = strstr(line, " name=");
    if (name != NULL) *name = '\0';
    strtok(line, " "); /* "#" */
    strtok(NULL, " "); /* "device" */
    char *index = strtok(NULL, " ");
    Device *device = index ? find_or_add_device(index) : NULL;
    if (device == NULL) return complain("'# device' needs a GPU, and %d at most", MAX_DEVICES);
    if (name != NULL) snprintf(device->name, sizeof device->name, "%s", name + strlen(" name="));
    for (char *key; (key = strtok(NULL, " ")) != NULL;) {
        char *value = strchr(key, '=');
        if (value == NULL) return complain("'%s' is not key=value", key);
        *value = '\0';
        if (!set_device_option(device, key, value + 1)) return 0;
    }
    return 1;
}

/* Splits at commas in place; strsep keeps empty cells */
static size_t split(char *line, char **cells) {
    size_t n = 0;
    while (line != NULL && n < MAX_CELLS) cells[n++] = strsep(&line, ",");
    return n;
}

static int find_column(const char *name) {
    for (int column = 0; column < N_COLUMNS; column++)
        if (strcmp(COLUMNS[column].name, name) == 0) return column;
    return -1;
}

/* Fills columns[i] with the Column of the header's cell i + 2; the first two are fixed */
static int parse_header(char *line, int *columns, size_t *n_columns) {
    char *cells[MAX_CELLS];
    size_t n = split(line, cells);
    if (n < 3 || strcmp(cells[0], "t_seconds") != 0 || strcmp(cells[1], "gpu") != 0)
        return complain("the header must begin with t_seconds,gpu");
    *n_columns = n - 2;
    for (size_t i = 0; i < *n_columns; i++) {
        columns[i] = find_column(cells[i + 2]);
        if (columns[i] < 0) return complain("unknown column '%s'", cells[i + 2]);
    }
    return 1;
}

static int parse_number(const char *text, double *number) {
    char *end;
    *number = strtod(text, &end);
    if (end == text || *end != '\0') return complain("'%s' is not a number", text);
    return 1;
}

static int parse_cell(const char *text, Cell *cell) {
    if (*text == '\0') cell->result = NOT_SUPPORTED;
    else if (strcmp(text, "lost") == 0) cell->result = GPU_IS_LOST;
    else if (strcmp(text, "unknown") == 0) cell->result = UNKNOWN;
    else if (strcmp(text, "timeout") == 0) cell->result = TIMEOUT;
    else return cell->result = SUCCESS, parse_number(text, &cell->value);
    return 1;
}

/* Integral of a gauge from the first row to a time not before this cell's row; NaN adds nothing */
static double integral_until(const Cell *cell, double seconds) {
    return cell->integral + (isnan(cell->value) ? 0 : cell->value * seconds);
}

static void integrate(const Row *before, Row *row) {
    for (int i = 0; i < N_COLUMNS; i++)
        row->cells[i].integral = integral_until(&before->cells[i], row->time - before->time);
}

static Row *add_row(Device *device, double time) {
    size_t n = device->n_rows;
    if (n > 0 && time <= device->rows[n - 1].time) {
        complain("times of GPU %s must grow", device->index);
        return NULL;
    }
    device->rows = realloc(device->rows, (n + 1) * sizeof(Row));
    Row *row = &device->rows[n];
    *row = (Row){.time = time};
    for (int i = 0; i < N_COLUMNS; i++) row->cells[i].result = NOT_SUPPORTED;
    if (n > 0) integrate(row - 1, row);
    device->n_rows++;
    return row;
}

static int parse_row(char *line, const int *columns, size_t n_columns) {
    char *cells[MAX_CELLS];
    double time;
    if (split(line, cells) != n_columns + 2) return complain("not as many cells as the header has");
    if (!parse_number(cells[0], &time)) return 0;
    Device *device = find_or_add_device(cells[1]);
    if (device == NULL) return complain("more than %d GPUs", MAX_DEVICES);
    Row *row = add_row(device, time);
    for (size_t i = 0; row != NULL && i < n_columns; i++)
        if (!parse_cell(cells[i + 2], &row->cells[columns[i]])) return 0;
    return row != NULL;
}

static int parse_trace(FILE *file) {
    char line[MAX_LINE];
    int columns[MAX_CELLS];
    size_t n_columns = 0;
    for (line_number = 1; fgets(line, sizeof line, file) != NULL; line_number++) {
        line[strcspn(line, "\r\n")] = '\0';
        int ok = 1;
        if (strncmp(line, "# device ", 9) == 0) ok = parse_device_line(line);
        else if (*line == '#' || *line == '\0') continue;
        else if (n_columns == 0) ok = parse_header(line, columns, &n_columns);
        else ok = parse_row(line, columns, n_columns);
        if (!ok) return 0;
    }
    for (size_t i = 0; i < n_devices; i++)
        if (devices[i].n_rows == 0) return complain("no row for GPU %s", devices[i].index);
    return n_columns > 0 ? 1 : complain("no header");
}

static void forget_trace(void) {
    for (size_t i = 0; i < n_devices; i++) free(devices[i].rows);
    n_devices = 0;
}

static int load_trace(void) {
    trace_path = getenv("NVML_REPLAY_TRACE");
    FILE *file = trace_path ? fopen(trace_path, "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "nvml_replay: cannot read $NVML_REPLAY_TRACE (%s)\n",
                trace_path ? trace_path : "not set");
        return 0;
    }
    int ok = parse_trace(file);
    fclose(file);
    if (!ok) forget_trace();
    return ok;
}

/* ---- What the trace says at a time ---- */

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The trace's time now, in seconds */
static double now(void) {
    static double last;
    const char *path = getenv("NVML_REPLAY_CLOCK");
    if (path == NULL) return devices[0].rows[0].time + monotonic() - started_at;
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%lf", &last) != 1) last = 0;
        fclose(file);
    }
    return last;
}

/* Folds a time into the trace when it loops, and counts the full loops before it */
static double fold(const Device *device, double time, double *loops) {
    const char *loop = getenv("NVML_REPLAY_LOOP");
    double first = device->rows[0].time;
    double length = device->rows[device->n_rows - 1].time - first;
    *loops = 0;
    if (loop == NULL || strcmp(loop, "1") != 0 || length <= 0 || time < first) return time;
    *loops = floor((time - first) / length);
    return time - *loops * length;
}

/* The newest row that is not after the time, or the first one */
static const Row *row_at(const Device *device, double time) {
    size_t low = 0, high = device->n_rows;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (device->rows[middle].time <= time) low = middle;
        else high = middle;
    }
    return &device->rows[low];
}

static Result read_gauge(const Device *device, Column column, double time, double *value) {
    double loops;
    const Cell *cell = &row_at(device, fold(device, time, &loops))->cells[column];
    *value = cell->value;
    return cell->result;
}

static Result read_counter(const Device *device, Column column, double time, double *value) {
    double loops;
    double folded = fold(device, time, &loops);
    const Row *first = &device->rows[0], *last = &device->rows[device->n_rows - 1];
    const Row *row = row_at(device, folded);
    const Cell *cell = &row->cells[column];
    *value = cell->value + loops * (last->cells[column].value - first->cells[column].value);
    if (row != last && folded > row->time && (row + 1)->cells[column].result == SUCCESS)
        *value += ((row + 1)->cells[column].value - cell->value) * (folded - row->time) /
                  ((row + 1)->time - row->time);
    return cell->result;
}

static Result read_column(const Device *device, Column column, double time, double *value) {
    return COLUMNS[column].counter ? read_counter(device, column, time, value)
                                   : read_gauge(device, column, time, value);
}

/* Integral of a gauge from the first row to the time */
static double integral(const Device *device, Column column, double time) {
    double loops;
    double folded = fold(device, time, &loops);
    const Row *row = row_at(device, folded), *last = &device->rows[device->n_rows - 1];
    return loops * last->cells[column].integral +
           integral_until(&row->cells[column], folded - row->time);
}

/* Mean between two times: of a gauge its time-weighted mean, of a counter its rate */
static double mean(const Device *device, Column column, double from, double until) {
    double before, after;
    if (!COLUMNS[column].counter)
        return (integral(device, column, until) - integral(device, column, from)) / (until - from);
    read_counter(device, column, from, &before);
    read_counter(device, column, until, &after);
    return (after - before) / (until - from);
}

/* ---- Calls ---- */

/* Every call begins here: hangs if it was asked to */
static Result enter(const char *function) {
    const char *hang = getenv("NVML_REPLAY_HANG");
    while (hang != NULL && strcmp(hang, function) == 0) pause();
    return initialized ? SUCCESS : UNINITIALIZED;
}

static int is_instance(const Device *device) { return strchr(device->index, '.') != NULL; }

static int is_instance_of(const Device *device, const Device *parent) {
    size_t length = strlen(parent->index);
    return strncmp(device->index, parent->index, length) == 0 && device->index[length] == '.';
}

static int has_instances(const Device *device) {
    int found = 0;
    for (size_t i = 0; i < n_devices; i++) found |= is_instance_of(&devices[i], device);
    return found;
}

/* A MIG instance has memory, processes and GPM; all else belongs to the board. With MIG on, nobody
 * has utilization. */
static int is_refused(const Device *device, Column column) {
    if (column == UTILIZATION || column == MEMORY_UTILIZATION)
        return is_instance(device) || has_instances(device);
    return is_instance(device) && column != MEMORY_USED && column < PROCESSES;
}

static Result read_now(const char *function, const Device *device, Column column, double *value) {
    Result result = enter(function);
    if (result == SUCCESS && is_refused(device, column)) return NOT_SUPPORTED;
    return result == SUCCESS ? read_column(device, column, now(), value) : result;
}

static Result read_uint(const char *function, const Device *device, Column column, uint *out) {
    double value = 0;
    Result result = read_now(function, device, column, &value);
    if (result == SUCCESS) *out = (uint)value;
    return result;
}

static Result read_ulonglong(
    const char *function, const Device *device, Column column, ulonglong *out) {
    double value = 0;
    Result result = read_now(function, device, column, &value);
    if (result == SUCCESS) *out = (ulonglong)value;
    return result;
}

Result nvmlInitWithFlags(uint flags) {
    (void)enter("nvmlInitWithFlags");
    (void)flags;
    enter(__func__);
    if (initialized++ > 0) return SUCCESS; /* NVML counts, too */
    started_at = monotonic();
    if (load_trace()) return SUCCESS;
    initialized = 0;
    return UNKNOWN;
}

Result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

Result nvmlShutdown(void) {
    if (enter(__func__) != SUCCESS) return UNINITIALIZED;
    if (--initialized == 0) forget_trace();
    return SUCCESS;
}

const char *nvmlErrorString(Result result) {
    return result == SUCCESS ? "Success" : "Replayed error";
}

Result nvmlSystemGetDriverVersion(char *text, uint size) {
    snprintf(text, size, "999.0-replay");
    return enter(__func__);
}

Result nvmlSystemGetNVMLVersion(char *text, uint size) {
    snprintf(text, size, "13.999.0-replay");
    return enter(__func__);
}

Result nvmlDeviceGetCount_v2(uint *count) {
    *count = 0;
    for (size_t i = 0; i < n_devices; i++) *count += !is_instance(&devices[i]);
    return enter(__func__);
}

Result nvmlDeviceGetHandleByIndex_v2(uint index, Device **device) {
    char text[16];
    snprintf(text, sizeof text, "%u", index);
    Result result = enter(__func__);
    if (result != SUCCESS) return result;
    *device = find_device(text);
    return *device == NULL ? INVALID_ARGUMENT : (Result)(*device)->open_error;
}

Result nvmlDeviceGetMinorNumber(Device *device, uint *minor) {
    *minor = (uint)device->minor;
    return is_instance(device) ? NOT_SUPPORTED : enter(__func__);
}

Result nvmlDeviceGetName(Device *device, char *text, uint size) {
    snprintf(text, size, "%s", device->name);
    return enter(__func__);
}

Result nvmlDeviceGetUUID(Device *device, char *text, uint size) {
    snprintf(text, size, "%s", device->uuid);
    return enter(__func__);
}

Result nvmlDeviceGetUtilizationRates(Device *device, Utilization *out) {
    Result result = read_uint(__func__, device, UTILIZATION, &out->gpu);
    return result == SUCCESS ? read_uint(__func__, device, MEMORY_UTILIZATION, &out->memory)
                             : result;
}

Result nvmlDeviceGetMemoryInfo(Device *device, Memory *out) {
    double used_mib = 0;
    Result result = read_now(__func__, device, MEMORY_USED, &used_mib);
    out->total = (ulonglong)(device->memory_mib * 1048576);
    out->used = (ulonglong)(used_mib * 1048576);
    out->free = out->total - out->used;
    return result;
}

Result nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *out) {
    Memory memory;
    Result result = nvmlDeviceGetMemoryInfo(device, &memory);
    *out = (MemoryV2){out->version, memory.total, 0, memory.free, memory.used};
    return result;
}

Result nvmlDeviceGetPowerUsage(Device *device, uint *milliwatts) {
    return read_uint(__func__, device, POWER, milliwatts);
}

Result nvmlDeviceGetEnforcedPowerLimit(Device *device, uint *milliwatts) {
    *milliwatts = (uint)device->power_limit_mw;
    return is_instance(device) ? NOT_SUPPORTED : enter(__func__);
}

Result nvmlDeviceGetTotalEnergyConsumption(Device *device, ulonglong *millijoules) {
    return read_ulonglong(__func__, device, ENERGY, millijoules);
}

Result nvmlDeviceGetTemperature(Device *device, uint sensor, uint *celsius) {
    (void)sensor;
    return read_uint(__func__, device, TEMPERATURE, celsius);
}

Result nvmlDeviceGetClockInfo(Device *device, uint clock, uint *megahertz) {
    return read_uint(__func__, device, clock == 2 ? MEMORY_CLOCK : SM_CLOCK, megahertz);
}

Result nvmlDeviceGetMaxClockInfo(Device *device, uint clock, uint *megahertz) {
    *megahertz = (uint)device->sm_max_mhz;
    return clock == 2 || is_instance(device) ? NOT_SUPPORTED : enter(__func__);
}

Result nvmlDeviceGetCurrentClocksEventReasons(Device *device, ulonglong *reasons) {
    return read_ulonglong(__func__, device, THROTTLE_REASONS, reasons);
}

Result nvmlDeviceGetTotalEccErrors(Device *device, uint type, uint counter, ulonglong *count) {
    (void)counter;
    return read_ulonglong(__func__, device, type == 0 ? ECC_CORRECTED : ECC_UNCORRECTED, count);
}

Result nvmlDeviceGetRemappedRows(
    Device *device, uint *corrected, uint *uncorrected, uint *pending, uint *failed) {
    *uncorrected = *failed = 0;
    Result result = read_uint(__func__, device, REMAPPED_ROWS, corrected);
    return result == SUCCESS ? read_uint(__func__, device, REMAP_PENDING, pending) : result;
}

/* ---- MIG: a GPU with instances in the trace has MIG on ---- */

Result nvmlDeviceGetMigDeviceHandleByIndex(Device *device, uint index, Device **instance) {
    char text[32];
    snprintf(text, sizeof text, "%s.%u", device->index, index);
    *instance = find_device(text);
    int there = *instance != NULL && now() >= (*instance)->from && now() < (*instance)->until;
    return there ? enter(__func__) : NOT_FOUND;
}

Result nvmlDeviceGetMaxMigDeviceCount(Device *device, uint *count) {
    *count = is_instance(device) ? 0 : 7;
    return enter(__func__);
}

Result nvmlDeviceGetMigMode(Device *device, uint *current, uint *pending) {
    *current = *pending = (uint)has_instances(device);
    return is_instance(device) ? NOT_SUPPORTED : enter(__func__);
}

Result nvmlDeviceGetGpuInstanceId(Device *device, uint *id) {
    *id = device->gpu_instance;
    return is_instance(device) ? enter(__func__) : INVALID_ARGUMENT;
}

Result nvmlDeviceGetComputeInstanceId(Device *device, uint *id) {
    *id = device->compute_instance;
    return is_instance(device) ? enter(__func__) : INVALID_ARGUMENT;
}

/* ---- Processes ---- */

typedef struct { Process all[MAX_PROCESSES]; uint n; } Processes;

static void add_process(Processes *found, const Device *device, uint pid) {
    uint gpu = is_instance(device) ? device->gpu_instance : UINT32_MAX;
    uint compute = is_instance(device) ? device->compute_instance : UINT32_MAX;
    if (found->n < MAX_PROCESSES) found->all[found->n++] = (Process){pid, 1ULL << 30, gpu, compute};
}

/* The trace gives a number of processes; their ids are 1000 * (GPU + 1), counted on, and 100 more
 * for each instance */
static Result add_traced(Processes *found, const Device *device) {
    uint count = 0;
    Result result = read_uint("nvmlDeviceGetComputeRunningProcesses_v3", device, PROCESSES, &count);
    const char *dot = strchr(device->index, '.');
    uint first = 1000 * ((uint)atoi(device->index) + 1) + (dot ? 100 * ((uint)atoi(dot + 1) + 1) : 0);
    for (uint i = 0; result == SUCCESS && i < count; i++) add_process(found, device, first + i);
    return result;
}

static void add_given(Processes *found, const Device *device, const char *given) {
    char index[16];
    uint pid;
    for (int length; sscanf(given, " %15[^:]:%u%n", index, &pid, &length) == 2; given += length)
        if (strcmp(index, device->index) == 0) add_process(found, device, pid);
}

/* $NVML_REPLAY_PIDS, or what is in the file of that name now */
static const char *given_pids(void) {
    static char text[4096];
    const char *given = getenv("NVML_REPLAY_PIDS");
    FILE *file = given ? fopen(given, "r") : NULL;
    if (file == NULL) return given;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static Result add_processes(Processes *found, const Device *device) {
    const char *given = given_pids();
    if (given == NULL) return add_traced(found, device);
    add_given(found, device, given);
    return enter("nvmlDeviceGetComputeRunningProcesses_v3");
}

/* A GPU with MIG on lists the processes of all its instances */
Result nvmlDeviceGetComputeRunningProcesses_v3(Device *device, uint *size, Process *processes) {
    Processes found = {.n = 0};
    Result result = has_instances(device) ? SUCCESS : add_processes(&found, device);
    for (size_t i = 0; i < n_devices && result == SUCCESS; i++)
        if (is_instance_of(&devices[i], device)) result = add_processes(&found, &devices[i]);
    if (result != SUCCESS) return result;
    uint room = *size;
    *size = found.n;
    if (found.n > room) return INSUFFICIENT_SIZE;
    memcpy(processes, found.all, found.n * sizeof *processes);
    return SUCCESS;
}

/* ---- Field values ---- */

static int column_of_field(uint field) {
    for (int column = 0; column < N_COLUMNS; column++)
        if (COLUMNS[column].field != 0 && (uint)COLUMNS[column].field == field) return column;
    return -1;
}

static void fill_field(const Device *device, double time, FieldValue *out) {
    double value = 0;
    int column = column_of_field(out->field);
    out->result = column < 0 ? NOT_SUPPORTED : read_column(device, column, time, &value);
    if (out->result != SUCCESS) return;
    int narrow = (column == PCIE_TX || column == PCIE_RX) && device->pcie_counter_bits == 32;
    out->value_type = narrow ? TYPE_U32 : COLUMNS[column].type;
    out->value.u64 = 0;
    if (out->value_type == TYPE_U32) out->value.u32 = (uint)(ulonglong)value; /* wraps */
    else out->value.u64 = (ulonglong)value;
}

Result nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *values) {
    Result result = enter(__func__);
    double time = result == SUCCESS ? now() : 0;
    for (int i = 0; result == SUCCESS && i < count; i++) fill_field(device, time, &values[i]);
    return result;
}

/* ---- GPM: a sample is a moment; metrics are means between two moments ---- */

Result nvmlGpmQueryDeviceSupport(Device *device, GpmSupport *out) {
    out->supported = 0;
    for (int column = GPM_GRAPHICS; column < N_COLUMNS; column++)
        out->supported |= device->rows[0].cells[column].result == SUCCESS;
    return enter(__func__);
}

Result nvmlGpmSampleAlloc(GpmSample **sample) {
    *sample = calloc(1, sizeof **sample);
    return enter(__func__);
}

Result nvmlGpmSampleFree(GpmSample *sample) {
    free(sample);
    return enter(__func__);
}

Result nvmlGpmSampleGet(Device *device, GpmSample *sample) {
    double unused;
    Result result = read_now(__func__, device, GPM_SM, &unused);
    if (result == SUCCESS) *sample = (GpmSample){device, now()};
    return result;
}

Result nvmlGpmMigSampleGet(Device *device, uint gpu_instance, GpmSample *sample) {
    for (size_t i = 0; i < n_devices; i++)
        if (is_instance_of(&devices[i], device) && devices[i].gpu_instance == gpu_instance)
            return nvmlGpmSampleGet(&devices[i], sample);
    return INVALID_ARGUMENT;
}

static int column_of_metric(uint metric) {
    for (int column = 0; column < N_COLUMNS; column++)
        if (COLUMNS[column].metric != 0 && (uint)COLUMNS[column].metric == metric) return column;
    return -1;
}

/* GPM gives MiB/s where the trace has bytes (PCIe) or KiB (NVLink) */
static double gpm_unit(int column) {
    if (column == PCIE_TX || column == PCIE_RX) return 1048576;
    return column == NVLINK_TX || column == NVLINK_RX ? 1024 : 1;
}

static void fill_metric(const GpmRequest *request, GpmMetric *metric) {
    const GpmSample *from = request->first, *until = request->second;
    int column = column_of_metric(metric->id);
    const Device *device = until->device;
    metric->result = column < 0 ? NOT_SUPPORTED
                                : read_column(device, column, until->time, &metric->value);
    if (metric->result == SUCCESS && !isnan(metric->value))
        metric->value = mean(device, column, from->time, until->time) / gpm_unit(column);
}

Result nvmlGpmMetricsGet(GpmRequest *request) {
    Result result = enter(__func__);
    if (result != SUCCESS) return result;
    if (request->version != 1 || request->first->device != request->second->device ||
        request->first->time >= request->second->time)
        return INVALID_ARGUMENT;
    for (uint i = 0; i < request->count; i++) fill_metric(request, &request->metrics[i]);
    return SUCCESS;
}

/* ---- Xid events: one each time that the trace's count passes a whole number ---- */

Result nvmlEventSetCreate(EventSet **set) {
    *set = calloc(1, sizeof **set);
    return enter(__func__);
}

Result nvmlEventSetFree(EventSet *set) {
    free(set);
    return enter(__func__);
}

Result nvmlDeviceRegisterEvents(Device *device, ulonglong types, EventSet *set) {
    (void)types;
    Result result = read_ulonglong(__func__, device, XID, &set->seen[set->n]);
    if (result == SUCCESS) set->devices[set->n++] = device;
    return result;
}

Result nvmlEventSetWait_v2(EventSet *set, Event *event, uint milliseconds) {
    (void)milliseconds;
    for (uint i = 0; i < set->n; i++) {
        ulonglong count = 0;
        Result result = read_ulonglong(__func__, set->devices[i], XID, &count);
        if (result != SUCCESS || count <= set->seen[i]) continue;
        set->seen[i]++;
        *event = (Event){set->devices[i], 8, 79, UINT32_MAX, UINT32_MAX};
        return SUCCESS;
    }
    Result result = enter(__func__);
    return result == SUCCESS ? TIMEOUT : result;
}
