/* files.c -- see files.h. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *reason(void) {
  return strerror(errno);
}

/* ---- reading ---- */

const char *files_look(const char *path, FileKind *kind, size_t *size) {
  struct stat s;
  if (stat(path, &s) != 0) return reason();
  *kind = S_ISREG(s.st_mode) ? FILE_REGULAR : S_ISDIR(s.st_mode) ? FILE_DIRECTORY : FILE_OTHER;
  *size = (size_t)s.st_size;
  return NULL;
}

const char *files_size(const char *path, size_t *size) {
  FileKind kind = FILE_OTHER;
  const char *error = files_look(path, &kind, size);
  if (error != NULL) return error;
  if (kind == FILE_DIRECTORY) return "is a directory";
  return kind == FILE_REGULAR ? NULL : "is not a regular file";
}

void files_version(const char *path, int64_t version[2]) {
  struct stat s;
  version[0] = version[1] = 0;
  if (stat(path, &s) != 0) return;
  version[0] = (int64_t)s.st_size;
  version[1] = (int64_t)s.st_mtim.tv_sec * 1000000000 + (int64_t)s.st_mtim.tv_nsec;
}

static const char *read_all(int file, size_t offset, char *data, size_t size) {
  while (size > 0) {
    ssize_t count = pread(file, data, size, (off_t)offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return reason();
    if (count == 0) return "the file ends too early";
    data += count;
    offset += (size_t)count;
    size -= (size_t)count;
  }
  return NULL;
}

const char *files_read(const char *path, size_t offset, void *data, size_t size) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return reason();
  const char *error = read_all(file, offset, data, size);
  close(file);
  return error;
}

/* ---- writing ---- */

static const char *fail(FileWriter *writer, const char *error) {
  files_abandon(writer);
  return writer->error = error;
}

/* "folder/name" -> "folder/.feral-PID-N.tmp", hidden from listings and short whatever the name is. */
static bool name_temporary(FileWriter *writer, int attempt) {
  const char *slash = strrchr(writer->target, '/');
  int folder = slash != NULL ? (int)(slash + 1 - writer->target) : 0;
  int length = snprintf(writer->temporary, sizeof writer->temporary, "%.*s.feral-%ld-%d.tmp", folder, writer->target,
                        (long)getpid(), attempt);
  return length > 0 && (size_t)length < sizeof writer->temporary;
}

/* Makes the temporary file, with the rights of the old one where the file system knows rights. */
static const char *create_temporary(FileWriter *writer, const struct stat *old) {
  mode_t mode = old != NULL ? old->st_mode & 07777 : 0666;
  errno = ENAMETOOLONG;
  for (int attempt = 0; attempt < 1000 && name_temporary(writer, attempt); attempt++) {
    writer->file = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (writer->file >= 0) {
      if (old != NULL) (void)!fchmod(writer->file, mode);
      return NULL;
    }
    if (errno != EEXIST) break;
  }
  writer->temporary[0] = '\0'; /* not ours to remove */
  return reason();
}

const char *files_begin(FileWriter *writer, const char *path) {
  struct stat s;
  *writer = (FileWriter){.file = -1};
  bool exists = stat(path, &s) == 0;
  if (exists && S_ISDIR(s.st_mode)) return writer->error = "is a directory";
  size_t length = strlen(path);
  if (length >= sizeof writer->target) return writer->error = strerror(ENAMETOOLONG);
  if (!exists || realpath(path, writer->target) == NULL) memcpy(writer->target, path, length + 1);
  const char *error = NULL;
  if (exists && !S_ISREG(s.st_mode)) {
    writer->direct = true;
    writer->file = open(path, O_WRONLY | O_CLOEXEC);
    if (writer->file < 0) error = reason();
  } else {
    error = create_temporary(writer, exists ? &s : NULL);
  }
  return error != NULL ? fail(writer, error) : NULL;
}

const char *files_write(FileWriter *writer, const void *data, size_t size) {
  const char *next = data;
  while (size > 0 && writer->error == NULL) {
    ssize_t count = write(writer->file, next, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(writer, reason());
    next += count;
    size -= (size_t)count;
  }
  return writer->error;
}

/* A device or a file system that cannot flush says EINVAL, and has nothing to flush. */
static bool flush(int file) {
  return fsync(file) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS;
}

/* The new name itself reaches the disk with the folder it stands in. */
static bool flush_folder(const char *path) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash + 1 - path) : 1, slash != NULL ? path : ".");
  int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return errno == EACCES; /* a folder one may write to but not list */
  bool flushed = flush(file);
  close(file);
  return flushed;
}

const char *files_commit(FileWriter *writer) {
  if (writer->error != NULL) return writer->error;
  if (!flush(writer->file)) return fail(writer, reason());
  int file = writer->file;
  writer->file = -1;
  if (close(file) != 0 && errno != EINTR) return fail(writer, reason());
  if (writer->direct) return NULL;
  if (rename(writer->temporary, writer->target) != 0) return fail(writer, reason());
  writer->temporary[0] = '\0';
  return flush_folder(writer->target) ? NULL : fail(writer, reason());
}

void files_abandon(FileWriter *writer) {
  int saved = errno;
  if (writer->file >= 0) {
    close(writer->file);
    if (writer->error == NULL) writer->error = "the file was not written to its end";
  }
  if (!writer->direct && writer->temporary[0] != '\0') unlink(writer->temporary);
  writer->file = -1;
  writer->temporary[0] = '\0';
  errno = saved;
}

const char *files_write_atomic(const char *path, const void *data, size_t size) {
  FileWriter writer;
  files_begin(&writer, path);
  files_write(&writer, data, size);
  return files_commit(&writer);
}

/* ---- folders ---- */

static bool make_one(const char *path) {
  struct stat s;
  if (mkdir(path, 0777) == 0) return true;
  if (errno != EEXIST || stat(path, &s) != 0) return false;
  errno = ENOTDIR;
  return S_ISDIR(s.st_mode);
}

const char *files_make_directory(const char *path) {
  char prefix[PATH_MAX];
  size_t length = strlen(path);
  if (length >= sizeof prefix) return strerror(ENAMETOOLONG);
  memcpy(prefix, path, length + 1);
  for (char *slash = strchr(prefix + (prefix[0] == '/'), '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    if (!make_one(prefix)) return reason();
    *slash = '/';
  }
  if (length > 0 && prefix[length - 1] == '/') return NULL;
  return make_one(prefix) ? NULL : reason();
}
