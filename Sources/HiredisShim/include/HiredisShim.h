#pragma once

#include <stddef.h>
#include <stdint.h>

// One face for hiredis 0.14.1 and 1.x: a reply becomes a flat list of nodes in the order they stand on the wire (an
// array is followed by its elements), with all text in one block of bytes. Nothing is allocated per element, and what a
// reply holds is read after parsing, not from inside a callback.

#if defined(__has_attribute)
#if __has_attribute(enum_extensibility)
#define HIREDIS_SHIM_CLOSED __attribute__((enum_extensibility(closed)))
#endif
#endif
#ifndef HIREDIS_SHIM_CLOSED
#define HIREDIS_SHIM_CLOSED
#endif

typedef enum HIREDIS_SHIM_CLOSED HiredisShimNodeKind {
    HiredisShimNodeKindNull = 0,
    HiredisShimNodeKindInteger = 1,
    HiredisShimNodeKindStatus = 2,
    HiredisShimNodeKindBulk = 3,
    HiredisShimNodeKindError = 4,
    HiredisShimNodeKindArray = 5,
} HiredisShimNodeKind;

typedef struct {
    HiredisShimNodeKind kind;
    int64_t integer; // an integer's value, or how many elements an array has
    size_t offset;   // where the text of a status, bulk or error begins in the block of bytes
    size_t length;
} HiredisShimNode;

typedef enum HIREDIS_SHIM_CLOSED HiredisShimStep {
    HiredisShimStepIncomplete = 0, // more bytes are needed
    HiredisShimStepReply = 1,      // nodes and bytes hold one whole reply, until the next call of next or feed
    HiredisShimStepMalformed = 2,  // not RESP, or over the limit; the reader is of no more use
} HiredisShimStep;

typedef struct HiredisShimReader HiredisShimReader;

// NULL when there is no memory. A reply that needs more than maximum_reply_bytes is malformed.
HiredisShimReader *hiredis_shim_reader_create(size_t maximum_reply_bytes);
void hiredis_shim_reader_free(HiredisShimReader *reader);

// Copies the bytes. Zero when they could not be taken; the next call of next then says why.
int hiredis_shim_reader_feed(HiredisShimReader *reader, const void *bytes, size_t length);
HiredisShimStep hiredis_shim_reader_next(HiredisShimReader *reader);

const HiredisShimNode *hiredis_shim_reader_nodes(const HiredisShimReader *reader);
size_t hiredis_shim_reader_node_count(const HiredisShimReader *reader);
const uint8_t *hiredis_shim_reader_bytes(const HiredisShimReader *reader);
size_t hiredis_shim_reader_byte_count(const HiredisShimReader *reader);

// Why the reader is malformed; empty when it is not.
const char *hiredis_shim_reader_error(const HiredisShimReader *reader);

// The version of the headers this was compiled against, as in HIREDIS_MAJOR.
