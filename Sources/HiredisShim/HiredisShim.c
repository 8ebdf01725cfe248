#include "HiredisShim.h"

#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>
#include <hiredis/read.h>

// A block larger than this is given back once its reply was read.
#define KEPT_BYTES (256 * 1024)
// hiredis frees its buffer each time it is empty with more than this unused; the reader is fed at most 16 KiB at a
// time.
#define HIREDIS_KEPT_BYTES (64 * 1024)

struct HiredisShimReader {
    redisReader *reader;
    HiredisShimNode *nodes;
    size_t node_count;
    size_t node_capacity;
    uint8_t *bytes;
    size_t byte_count;
    size_t byte_capacity;
    size_t maximum;
    int complete;
    const char *error;
};

static HiredisShimNode *append_node(HiredisShimReader *shim, HiredisShimNodeKind kind) {
    if (shim->node_count == shim->node_capacity) {
        size_t capacity = shim->node_capacity == 0 ? 16 : shim->node_capacity * 2;
        HiredisShimNode *nodes = realloc(shim->nodes, capacity * sizeof(*nodes));
        if (nodes == NULL)
            return NULL;
        shim->nodes = nodes;
        shim->node_capacity = capacity;
    }
    HiredisShimNode *node = &shim->nodes[shim->node_count++];
    node->kind = kind;
    node->integer = 0;
    node->offset = 0;
    node->length = 0;
    return node;
}

static void *append_text(HiredisShimReader *shim, HiredisShimNodeKind kind, const char *text, size_t length) {
    if (length > shim->byte_capacity - shim->byte_count) {
        size_t capacity = shim->byte_capacity == 0 ? 512 : shim->byte_capacity;
        while (length > capacity - shim->byte_count)
            capacity *= 2;
        uint8_t *bytes = realloc(shim->bytes, capacity);
        if (bytes == NULL)
            return NULL;
        shim->bytes = bytes;
        shim->byte_capacity = capacity;
    }
    HiredisShimNode *node = append_node(shim, kind);
    if (node == NULL)
        return NULL;
    if (length > 0)
        memcpy(shim->bytes + shim->byte_count, text, length);
    node->offset = shim->byte_count;
    node->length = length;
    shim->byte_count += length;
    return shim;
}

// The object functions return the shim itself as the "object": hiredis only asks that it is not NULL.

static void *create_string(const redisReadTask *task, char *text, size_t length) {
    HiredisShimNodeKind kind = HiredisShimNodeKindBulk;
    if (task->type == REDIS_REPLY_STATUS)
        kind = HiredisShimNodeKindStatus;
    else if (task->type == REDIS_REPLY_ERROR)
        kind = HiredisShimNodeKindError;
    return append_text(task->privdata, kind, text, length);
}

static void *append_integer(const redisReadTask *task, HiredisShimNodeKind kind, int64_t value) {
    HiredisShimNode *node = append_node(task->privdata, kind);
    if (node == NULL)
        return NULL;
    node->integer = value;
    return task->privdata;
}

static void *create_integer(const redisReadTask *task, long long value) {
    return append_integer(task, HiredisShimNodeKindInteger, value);
}

static void *create_nil(const redisReadTask *task) { return append_integer(task, HiredisShimNodeKindNull, 0); }

static void free_object(void *object) { (void)object; }

#if HIREDIS_MAJOR >= 1

static void *create_array(const redisReadTask *task, size_t elements) {
    return append_integer(task, HiredisShimNodeKindArray, (int64_t)elements);
}

// RESP3 alone; never asked for (no HELLO is sent), answered all the same so that no node is missing from the list.
static void *create_double(const redisReadTask *task, double value, char *text, size_t length) {
    (void)value;
    return append_text(task->privdata, HiredisShimNodeKindBulk, text, length);
}

static void *create_bool(const redisReadTask *task, int value) {
    return append_integer(task, HiredisShimNodeKindInteger, value != 0);
}

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createDouble = create_double,
    .createNil = create_nil,
    .createBool = create_bool,
    .freeObject = free_object,
};

#else

static void *create_array(const redisReadTask *task, int elements) {
    return append_integer(task, HiredisShimNodeKindArray, elements);
}

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
    .freeObject = free_object,
};

#endif

HiredisShimReader *hiredis_shim_reader_create(size_t maximum_reply_bytes) {
    HiredisShimReader *shim = calloc(1, sizeof(*shim));
    if (shim == NULL)
        return NULL;
    shim->reader = redisReaderCreateWithFunctions(&functions);
    if (shim->reader == NULL) {
        free(shim);
        return NULL;
    }
    shim->reader->privdata = shim;
    shim->reader->maxbuf = HIREDIS_KEPT_BYTES;
    shim->maximum = maximum_reply_bytes;
    shim->error = "";
    return shim;
}

void hiredis_shim_reader_free(HiredisShimReader *shim) {
    if (shim == NULL)
        return;
    redisReaderFree(shim->reader);
    free(shim->nodes);
    free(shim->bytes);
    free(shim);
}

static void forget_reply(HiredisShimReader *shim) {
    shim->complete = 0;
    shim->node_count = 0;
    shim->byte_count = 0;
    if (shim->byte_capacity > KEPT_BYTES) {
        free(shim->bytes);
        shim->bytes = NULL;
        shim->byte_capacity = 0;
    }
    if (shim->node_capacity * sizeof(HiredisShimNode) > KEPT_BYTES) {
        free(shim->nodes);
        shim->nodes = NULL;
        shim->node_capacity = 0;
    }
}

int hiredis_shim_reader_feed(HiredisShimReader *shim, const void *bytes, size_t length) {
    if (shim->complete)
        forget_reply(shim);
    if (shim->error[0] != '\0')
        return 0;
    size_t held = shim->reader->len - shim->reader->pos + shim->byte_count + shim->node_count * sizeof(HiredisShimNode);
    if (held > shim->maximum || length > shim->maximum - held) {
        shim->error = "the reply is larger than is allowed";
        return 0;
    }
    if (redisReaderFeed(shim->reader, bytes, length) != REDIS_OK) {
        shim->error = shim->reader->errstr[0] != '\0' ? shim->reader->errstr : "out of memory";
        return 0;
    }
    return 1;
}

HiredisShimStep hiredis_shim_reader_next(HiredisShimReader *shim) {
    if (shim->complete)
        forget_reply(shim);
    if (shim->error[0] != '\0')
        return HiredisShimStepMalformed;
    void *reply = NULL;
    if (redisReaderGetReply(shim->reader, &reply) != REDIS_OK) {
        shim->error = shim->reader->errstr[0] != '\0' ? shim->reader->errstr : "the reply cannot be read";
        return HiredisShimStepMalformed;
    }
    if (reply == NULL)
        return HiredisShimStepIncomplete;
    shim->complete = 1;
    return HiredisShimStepReply;
}

const HiredisShimNode *hiredis_shim_reader_nodes(const HiredisShimReader *shim) { return shim->nodes; }
size_t hiredis_shim_reader_node_count(const HiredisShimReader *shim) { return shim->node_count; }
const uint8_t *hiredis_shim_reader_bytes(const HiredisShimReader *shim) { return shim->bytes; }
size_t hiredis_shim_reader_byte_count(const HiredisShimReader *shim) { return shim->byte_count; }
const char *hiredis_shim_reader_error(const HiredisShimReader *shim) { return shim->error; }
