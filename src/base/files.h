/*
** files.h -- whole files: read at once, and written so that a crash, a kill or a full disk leaves the old file or the
** new one, never a part. All functions return NULL, or what went wrong as text that stays valid until the next call.
*/
#ifndef FERAL_FILES_H
#define FERAL_FILES_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum FileKind { FILE_REGULAR, FILE_DIRECTORY, FILE_OTHER } FileKind;

/* What the path leads to, links followed, and its size in bytes. */
const char *files_look(const char *path, FileKind *kind, size_t *size);

/* As files_look, but anything other than a regular file is an error: the size of what files_read can read. */
const char *files_size(const char *path, size_t *size);

/* The file's size and the time of its last change in nanoseconds; zeros where it cannot be looked at. */
void files_version(const char *path, int64_t version[2]);

/* Bytes offset .. offset + size - 1 of a regular file; an error where the file ends before. */
const char *files_read(const char *path, size_t offset, void *data, size_t size);

/* A file being written: begin, write any number of times, then commit or abandon. The parts go to a temporary file
   beside the target; commit flushes it to the disk and renames it over the target. Any error abandons the writer, and
   after one write and commit only repeat it. 'path' must stay valid until the end. A target that is no regular file
   (/dev/stdout, a pipe) is written to directly; a link's target is replaced, not the link. */
typedef struct FileWriter {
  int file;
  bool direct;
  char target[PATH_MAX], temporary[PATH_MAX];
  const char *error;
} FileWriter;

const char *files_begin(FileWriter *writer, const char *path);
const char *files_write(FileWriter *writer, const void *data, size_t size);
const char *files_commit(FileWriter *writer);
void files_abandon(FileWriter *writer);

/* The whole of it for one block of bytes. */
const char *files_write_atomic(const char *path, const void *data, size_t size);

/* Makes a directory and those above it that are missing; one that is there already is no error. */
const char *files_make_directory(const char *path);

#endif
