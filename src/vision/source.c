/*
** source.c -- sources of pixels for Lua: made over tensors, cache files, image files and other sources; and read, one frame
** or many samples at a time. Numbers of samples and frames count from 1 here.
*/
#include <stdio.h>
#include <string.h>

#include "../base/files.h"
#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "../kernels/image/source_kinds.h"
#include "../tensor/images.h"
#include "../tensor/sources.h"
#include "../tensor/strings.h"

/* ---- kernels ---- */

/* Memory for the threads that fetch: 'room' bytes each. */
typedef struct Rooms {
  char *memory;
  size_t room;
  int threads;
} Rooms;

/* out: (frames,H,W,C). Returns NULL, or what is wrong, in the scratch. */
static const char *read_sample(const Source *s, long i, uint8_t *out, void *scratch) {
  size_t size = source_image_bytes(s);
  for (long f = 0; f < s->frames; f++, out += size) {
    Image image;
    const char *error = source_fetch(s, i, f, scratch, &image);
    if (error != NULL) return error; /* cppcheck-suppress returnDanglingLifetime ; the text lies in scratch */
    memcpy(out, image.pixels, size);
  }
  return NULL;
}

/* rows: (n), from 1  out: (n,frames,H,W,C)  failed: (n), true where a sample could not be had */
static void read_samples(const Source *s, const int32_t *rows, long n, uint8_t *out, bool *failed, const Rooms *r) {
  size_t size = source_image_bytes(s) * (size_t)s->frames;
#pragma omp parallel for schedule(dynamic) num_threads(r->threads)
  for (long k = 0; k < n; k++)
    failed[k] = !interrupted() && read_sample(s, rows[k] - 1, out + (size_t)k * size,
                                              r->memory + (size_t)omp_get_thread_num() * r->room) != NULL;
}

/* What is known of a sample of files: what it needs, or what is wrong with which of its files. */
typedef struct Look {
  FileNeeds needs;
  const char *error;
  long file;
} Look;

static void look_at(const FilesSource *s, long i, uint8_t *head, size_t size, Look *look) {
  long first = s->first != NULL ? s->first[i] : i, end = s->first != NULL ? s->first[i + 1] : i + 1;
  *look = (Look){.error = NULL};
  for (long file = first; file < end; file++) {
    FileNeeds needs = {0};
    look->error = source_files_look(s, file, head, size, &needs);
    look->file = file;
    if (needs.bytes > look->needs.bytes) look->needs.bytes = needs.bytes;
    if (look->error != NULL) return;
    if (needs.pixels > look->needs.pixels) look->needs.pixels = needs.pixels;
    if (needs.scratch > look->needs.scratch) look->needs.scratch = needs.scratch;
  }
}

/* ---- making ---- */

static Source shaped(const SourceKind *kind, long count, long frames, bool sequential, const long image[3]) {
  return (Source){.kind = kind,
                  .count = count,
                  .frames = frames,
                  .sequential = sequential,
                  .height = image[0],
                  .width = image[1],
                  .channels = image[2],
                  .most_pixels = image[0] * image[1]};
}

/* Whether images u8 (M,T,C,H,W) lie as (M,T,H,W,C). */
static bool is_channels_last(const Tensor *t) {
  if (t->ndim == 4) return tensor_is_layout(t, LAYOUT_IMAGE);
  const long *shape = t->shape, c = shape[2], w = shape[4], image = c * shape[3] * w;
  long stride[5] = {shape[1] * image, image, 1, w * c, c};
  for (int d = 0; d < 5; d++)
    if (shape[d] > 1 && t->stride[d] != stride[d]) return false;
  return true;
}

/* memory(images u8 N x C x H x W, or N x T x C x H x W, channels last in memory and kept) -> source */
static int l_memory(lua_State *L) {
  const Tensor *t = tensor_check_dtype(L, 1, DTYPE_U8);
  if ((t->ndim != 4 && t->ndim != 5) || !is_channels_last(t))
    tensor_error(L, "source.memory: images N x C x H x W or N x T x C x H x W, channels last, expected, got %s",
                 tensor_describe(L, t));
  int d = t->ndim - 3;
  MemorySource *s = source_push(L, sizeof *s);
  source_keep_tensor(L, -1, 1);
  s->base = shaped(&source_memory, t->shape[0], d == 2 ? t->shape[1] : 1, d == 2,
                   (long[]){t->shape[d + 1], t->shape[d + 2], t->shape[d]});
  s->pixels = t->data;
  return 1;
}

/* cache(path, offset, {N, H, W, C} or {N, T, H, W, C}) -> source of the bytes that lie in a file so from 'offset' on; or nil,
   message */
static int l_cache(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  lua_Integer offset = luaL_checkinteger(L, 2);
  long shape[TENSOR_MAX_DIMS];
  int ndim = tensor_check_shape(L, 3, shape), d = ndim - 3;
  if ((ndim != 4 && ndim != 5) || offset < 0)
    tensor_error(L, "source.cache: N x H x W x C or N x T x H x W x C expected");
  CacheSource *s = source_push(L, sizeof *s);
  source_keep(L, -1, 1);
  s->base = shaped(&source_cache, shape[0], d == 2 ? shape[1] : 1, d == 2, shape + d);
  s->path = path;
  s->offset = (size_t)offset;
  const char *error = source_cache_open(s);
  if (error == NULL) return 1;
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", path, error);
  return 2;
}

/* files(paths strings, {height, width, channels}, first i32 M + 1 or nil) -> source
   height and width 0: each image at its own size. first: sample i has the files number first[i] + 1 .. first[i + 1]. Its
   files must be looked at before any is fetched. */
static int l_files(lua_State *L) {
  lua_settop(L, 3);
  const Strings *paths = strings_check_frozen(L, 1);
  long image[3];
  luaL_checktype(L, 2, LUA_TTABLE);
  for (int k = 0; k < 3; k++) {
    lua_geti(L, 2, k + 1);
    image[k] = (long)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  FilesSource *s = source_push(L, sizeof *s);
  source_keep(L, 4, 1);
  long count = paths->count, frames = 1;
  if (!lua_isnil(L, 3)) {
    const Tensor *first = tensor_check_dtype(L, 3, DTYPE_I32);
    source_keep_tensor(L, 4, 3);
    s->first = tensor_ints(first);
    count = first->shape[0] - 1;
    for (long i = 0; i < count; i++)
      if (s->first[i + 1] - s->first[i] > frames) frames = s->first[i + 1] - s->first[i];
    if (!tensor_is_layout(first, LAYOUT_ROWS) || s->first[count] != paths->count)
      tensor_error(L, "source.files: the sequences do not take up all %I files", (lua_Integer)paths->count);
  }
  s->paths = paths;
  s->base = shaped(&source_files, count, frames, s->first != NULL, image);
  return 1;
}

static const Source *check_part(lua_State *L, int k, const Source *first) {
  lua_geti(L, 1, k);
  const Source *part = source_check(L, lua_gettop(L));
  if (first != NULL && (part->channels != first->channels || part->sequential != first->sequential))
    tensor_error(L, "source.join: source %d has %s of %d channels, the first %s of %d", k,
                 part->sequential ? "sequences" : "images", (int)part->channels,
                 first->sequential ? "sequences" : "images", (int)first->channels);
  return part;
}

/* join{sources} -> a source of all of them, one after another */
static int l_join(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  int parts = (int)luaL_len(L, 1);
  if (parts < 1) tensor_error(L, "source.join: no sources given");
  lua_settop(L, 1);
  JoinedSource *j = source_push(L, sizeof *j + (size_t)parts * (sizeof(void *) + sizeof *j->start));
  j->part = (const Source **)(j + 1);
  j->start = (long *)(j->part + parts);
  Source *s = &j->base;
  for (int k = 0; k < parts; k++) {
    const Source *part = check_part(L, k + 1, k > 0 ? j->part[0] : NULL);
    source_keep(L, 2, -1);
    lua_pop(L, 1);
    j->part[k] = part;
    j->start[k] = s->count;
    if (k == 0) *s = (Source){.height = part->height, .width = part->width};
    if (part->height != s->height || part->width != s->width) s->height = s->width = 0;
    if (part->frames > s->frames) s->frames = part->frames;
    if (part->most_pixels > s->most_pixels) s->most_pixels = part->most_pixels;
    if (part->scratch > s->scratch) s->scratch = part->scratch;
    s->count += part->count;
  }
  if (s->count > INT32_MAX)
    tensor_error(L, "source.join: %I samples are more than can be numbered", (lua_Integer)s->count);
  s->channels = j->part[0]->channels;
  s->sequential = j->part[0]->sequential;
  j->parts = parts;
  s->kind = &source_joined;
  return 1;
}

/* ---- looking ---- */

static int l_len(lua_State *L) {
  lua_pushinteger(L, source_check(L, 1)->count);
  return 1;
}

static long check_number(lua_State *L, int arg, const char *what, long most) {
  long i = tensor_check_size(L, arg, what, 1);
  if (i > most) tensor_error(L, "%s %I is more than %I", what, (lua_Integer)i, (lua_Integer)most);
  return i - 1;
}

/* source:frames(i) -> how many sample i has; source:frames() -> the most that one has */
static int l_frames(lua_State *L) {
  const Source *s = source_check(L, 1);
  bool any = lua_isnoneornil(L, 2);
  lua_pushinteger(L, any ? s->frames : source_frames(s, check_number(L, 2, "source: sample", s->count)));
  return 1;
}

/* source:image_size() -> channels, height, width; height and width nil where they differ */
static int l_image_size(lua_State *L) {
  const Source *s = source_check(L, 1);
  lua_pushinteger(L, s->channels);
  if (s->height == 0) return 1;
  lua_pushinteger(L, s->height);
  lua_pushinteger(L, s->width);
  return 3;
}

/* source:kind() -> "memory", "cache", "files", "drawn" or "joined" */
static int l_kind(lua_State *L) {
  lua_pushstring(L, source_check(L, 1)->kind->name);
  return 1;
}

static int l_is_sequential(lua_State *L) {
  lua_pushboolean(L, source_check(L, 1)->sequential);
  return 1;
}

static int l_tostring(lua_State *L) {
  const Source *s = source_check(L, 1);
  lua_pushfstring(L, "source of %I samples (%s)", (lua_Integer)s->count, s->kind->name);
  return 1;
}

/* source:scratch() -> the bytes that a thread needs to fetch */
static int l_scratch(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)source_check(L, 1)->scratch);
  return 1;
}

/* ---- looking at files ---- */

enum { LOOK_SAMPLES = 1024 };

static void *push_memory(lua_State *L, size_t size) {
  return scratch_push(L, size / sizeof(real) + 1);
}

static void raise_needs(FilesSource *s, const FileNeeds *needs) {
  if (needs->pixels > s->base.most_pixels) s->base.most_pixels = needs->pixels;
  if (needs->scratch > s->base.scratch) s->base.scratch = needs->scratch;
}

/* Those whose header is long are looked at again, whole. What is wrong goes to the table at 'faults'. */
static void take_looks(lua_State *L, FilesSource *s, Look *looks, long first, long n, int faults) {
  for (long k = 0; k < n; k++) {
    if (looks[k].error == source_header_is_long) {
      size_t bytes = looks[k].needs.bytes;
      look_at(s, first + k, push_memory(L, bytes), bytes, &looks[k]);
      scratch_release(L, -1);
      lua_pop(L, 1);
    }
    if (looks[k].error == NULL) {
      raise_needs(s, &looks[k].needs);
      continue;
    }
    lua_pushfstring(L, "%s: %s", strings_get(s->paths, looks[k].file), looks[k].error);
    lua_rawseti(L, faults, first + k + 1);
  }
}

/* source:look(first, last) -> faults
   Reads the headers of the files of samples first .. last, so that it is known what fetching takes. faults[i]: "path: what is
   wrong", where sample i cannot be had. */
static int l_look(lua_State *L) {
  FilesSource *s = (FilesSource *)source_check(L, 1);
  if (s->base.kind != &source_files) tensor_error(L, "source: only files can be looked at");
  long first = check_number(L, 2, "source: sample", s->base.count),
       end = check_number(L, 3, "source: sample", s->base.count) + 1;
  int threads = omp_get_max_threads();
  lua_settop(L, 3);
  uint8_t *heads = push_memory(L, (size_t)threads * SOURCE_HEAD);
  Look *looks = push_memory(L, LOOK_SAMPLES * sizeof *looks);
  lua_newtable(L);
  for (long n; first < end; first += n) {
    n = end - first < LOOK_SAMPLES ? end - first : LOOK_SAMPLES;
#pragma omp parallel for schedule(dynamic, 8)
    for (long k = 0; k < n; k++)
      look_at(s, first + k, heads + (size_t)omp_get_thread_num() * SOURCE_HEAD, SOURCE_HEAD, &looks[k]);
    take_looks(L, s, looks, first, n, 6);
    tensor_check_interrupt(L);
  }
  scratch_release(L, 4);
  scratch_release(L, 5);
  return 1;
}

/* ---- fetching ---- */

/* source:fetch(i, frame) -> u8 C x H x W, frame (default 1) of sample i; or nil, message */
static int l_fetch(lua_State *L) {
  const Source *s = source_check(L, 1);
  long i = check_number(L, 2, "source: sample", s->count),
       frame = lua_isnoneornil(L, 3) ? 0 : check_number(L, 3, "source: frame", source_frames(s, i));
  Image image;
  lua_settop(L, 3);
  void *scratch = push_memory(L, s->scratch);
  const char *error = source_fetch(s, i, frame, scratch, &image);
  if (error != NULL) {
    lua_pushnil(L);
    lua_pushstring(L, error);
    return 2;
  }
  Tensor *t = images_push_new(L, image.bytes ? DTYPE_U8 : DTYPE_REAL, 1, image.channels, image.height, image.width);
  memcpy(t->data, image.pixels, (size_t)image_numel(t) * dtype_size(t->dtype));
  scratch_release(L, 4);
  images_squeeze(L);
  return 1;
}

enum { ROOMS_MOST = 256 << 20 };

/* As many threads as have room. */
static Rooms push_rooms(lua_State *L, const Source *s) {
  Rooms r = {.room = (s->scratch / 64 + 1) * 64};
  size_t threads = (size_t)omp_get_max_threads(), most = ROOMS_MOST / r.room;
  r.threads = most < 1 ? 1 : (int)(most < threads ? most : threads);
  r.memory = push_memory(L, r.room * (size_t)r.threads);
  return r;
}

/* The rows at 'arg' as contiguous memory that is pushed: numbers of samples that all have s->frames images of one size. */
static const Tensor *push_rows(lua_State *L, int arg, const Source *s) {
  if (s->height == 0) tensor_error(L, "source: the images differ in size, so they make no tensor");
  tensor_check_dtype(L, arg, DTYPE_I32);
  const Tensor *rows = tensor_push_in_layout(L, arg, LAYOUT_ROWS);
  for (long k = 0, n = tensor_numel(rows); k < n; k++) {
    int i = tensor_ints(rows)[k];
    if (i < 1 || i > s->count) tensor_error(L, "source: sample %d is not in 1 .. %I", i, (lua_Integer)s->count);
    if (source_frames(s, i - 1) != s->frames)
      tensor_error(L, "source: sample %d has %I frames, another %I, so they make no tensor", i,
                   (lua_Integer)source_frames(s, i - 1), (lua_Integer)s->frames);
  }
  return rows;
}

/* source:read(rows i32 N, out u8 (N T) x C x H x W, channels last) -> faults
   Fills 'out' with those samples. faults[k]: what is wrong, where row k could not be had. */
static int l_read(lua_State *L) {
  const Source *s = source_check(L, 1);
  lua_settop(L, 3);
  const Tensor *out = tensor_check_dtype(L, 3, DTYPE_U8), *rows = push_rows(L, 2, s);
  long n = tensor_numel(rows);
  if (out->ndim != 4 || !tensor_is_layout(out, LAYOUT_IMAGE) || out->shape[0] != n * s->frames ||
      out->shape[1] != s->channels || out->shape[2] != s->height || out->shape[3] != s->width)
    tensor_error(L, "source: no place for %I samples in %s", (lua_Integer)n, tensor_describe(L, out));
  lua_newtable(L);
  int faults = lua_gettop(L);
  bool *failed = push_memory(L, (size_t)n);
  Rooms rooms = push_rooms(L, s);
  read_samples(s, rows->data, n, out->data, failed, &rooms);
  tensor_check_interrupt(L);
  size_t size = source_image_bytes(s) * (size_t)s->frames;
  for (long k = 0; k < n; k++) {
    const char *error = NULL;
    if (failed[k]) error = read_sample(s, tensor_ints(rows)[k] - 1, tensor_bytes(out) + (size_t)k * size, rooms.memory);
    if (error == NULL) continue;
    lua_pushstring(L, error);
    lua_rawseti(L, faults, k + 1);
  }
  scratch_release(L, faults + 1);
  scratch_release(L, faults + 2);
  lua_settop(L, faults);
  return 1;
}

typedef struct Copy {
  FileWriter writer;
  const Source *source;
  const int32_t *rows; /* (count) */
  long count, done, together;
  uint8_t *out;
  bool *failed; /* (together) */
  Rooms rooms;
} Copy;

/* The next samples to the file; what cannot be had becomes zeros. Returns how many. */
static long copy_some(Copy *c) {
  const Source *s = c->source;
  size_t size = source_image_bytes(s) * (size_t)s->frames;
  long some = c->count - c->done < c->together ? c->count - c->done : c->together;
  read_samples(s, c->rows + c->done, some, c->out, c->failed, &c->rooms);
  for (long k = 0; k < some; k++)
    if (c->failed[k]) memset(c->out + (size_t)k * size, 0, size);
  files_write(&c->writer, c->out, (size_t)some * size);
  c->done += some;
  return some;
}

static int l_close_copy(lua_State *L) {
  files_abandon(&((Copy *)lua_touserdata(L, 1))->writer);
  return 0;
}

/* An unfinished file goes when this does. */
static Copy *push_copy(lua_State *L) {
  Copy *c = lua_newuserdatauv(L, sizeof *c, 0);
  memset(c, 0, sizeof *c);
  c->writer.file = -1;
  if (luaL_newmetatable(L, "feral.source.copy")) {
    lua_pushcfunction(L, l_close_copy);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_close_copy);
    lua_setfield(L, -2, "__close");
  }
  lua_setmetatable(L, -2);
  return c;
}

/* What is wrong with those of the last 'some' samples that failed, to the table at 'faults'. */
static void take_faults(lua_State *L, const Copy *c, long some, int faults) {
  for (long k = 0; k < some; k++) {
    if (!c->failed[k]) continue;
    long place = c->done - some + k;
    const char *error = read_sample(c->source, c->rows[place] - 1, c->out, c->rooms.memory);
    lua_pushstring(L, error != NULL ? error : "the file was changed while it was read");
    lua_rawseti(L, faults, place + 1);
  }
}

enum { WRITE_PATH = 2, WRITE_HEADER, WRITE_ROWS, WRITE_EACH, WRITE_FAULTS };

/* A copy that has not begun, with all its memory. */
static Copy *push_whole_copy(lua_State *L, const Source *s, const Tensor *rows) {
  enum { BYTES_TOGETHER = 4 << 20 };
  size_t size = source_image_bytes(s) * (size_t)s->frames;
  Copy *c = push_copy(L);
  lua_toclose(L, -1);
  c->source = s;
  c->rows = rows->data;
  c->count = tensor_numel(rows);
  c->together = (long)(BYTES_TOGETHER / size) + 1;
  c->out = push_memory(L, (size_t)c->together * size);
  c->failed = push_memory(L, (size_t)c->together);
  c->rooms = push_rooms(L, s);
  return c;
}

/* Whether the caller wants no more. */
static bool is_stopped(lua_State *L, const Copy *c) {
  tensor_check_interrupt(L);
  if (lua_isnil(L, WRITE_EACH)) return false;
  lua_pushvalue(L, WRITE_EACH);
  lua_pushinteger(L, c->done);
  lua_pushvalue(L, WRITE_FAULTS);
  lua_call(L, 2, 1);
  bool stopped = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return stopped;
}

/* source:write(path, header, rows, each) -> true, faults; or nil, message
   Writes the header and those samples, (N,T,H,W,C), to a file; an old one of that name stays whole until the end. What cannot
   be had becomes zeros, and faults[k] says why. Calls each(samples written, faults) now and then, where it is not nil; once
   that gives true nothing is written, and the result is false, faults. */
static int l_write(lua_State *L) {
  const Source *s = source_check(L, 1);
  const char *path = luaL_checkstring(L, WRITE_PATH);
  size_t length;
  const char *header = luaL_checklstring(L, WRITE_HEADER, &length), *error = NULL;
  lua_settop(L, WRITE_EACH);
  lua_newtable(L);
  Copy *c = push_whole_copy(L, s, push_rows(L, WRITE_ROWS, s));
  bool stopped = false;
  files_begin(&c->writer, path);
  files_write(&c->writer, header, length);
  while (!stopped && c->done < c->count && c->writer.error == NULL) {
    take_faults(L, c, copy_some(c), WRITE_FAULTS);
    stopped = is_stopped(L, c);
  }
  if (!stopped) error = files_commit(&c->writer);
  if (error != NULL) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, error);
    return 2;
  }
  lua_pushboolean(L, !stopped);
  lua_pushvalue(L, WRITE_FAULTS);
  return 2;
}

/* ---- whether files are still the same ---- */

static uint64_t mix_number(uint64_t h, uint64_t number) {
  h = (h ^ number) * 0x100000001b3u;
  return h ^ h >> 29;
}

static uint64_t mix_text(uint64_t h, const char *text) {
  for (; *text != '\0'; text++) h = (h ^ (uint8_t)*text) * 0x100000001b3u;
  return mix_number(h, 0);
}

/* source:fingerprint() -> a string that changes when a file's name, size or time changes, or what is made of them */
static int l_fingerprint(lua_State *L) {
  const FilesSource *s = (const FilesSource *)source_check(L, 1);
  if (s->base.kind != &source_files) tensor_error(L, "source: only files have a fingerprint");
  uint64_t h = mix_number(mix_number(0xcbf29ce484222325u, (uint64_t)s->base.height), (uint64_t)s->base.width);
  h = mix_number(mix_number(h, (uint64_t)s->base.channels), (uint64_t)s->base.frames);
  for (long i = 0; i < s->paths->count && !interrupted(); i++) {
    const char *path = strings_get(s->paths, i);
    int64_t version[2] = {0, 0};
    files_version(path, version);
    h = mix_number(mix_number(mix_text(h, path), (uint64_t)version[0]), (uint64_t)version[1]);
  }
  tensor_check_interrupt(L);
  char text[17];
  snprintf(text, sizeof text, "%016llx", (unsigned long long)h);
  lua_pushstring(L, text);
  return 1;
}

static const luaL_Reg methods[] = {
    {"size", l_len},
    {"__len", l_len},
    {"__tostring", l_tostring},
    {"frames", l_frames},
    {"image_size", l_image_size},
    {"kind", l_kind},
    {"is_sequential", l_is_sequential},
    {"scratch", l_scratch},
    {"look", l_look},
    {"fetch", l_fetch},
    {"read", l_read},
    {"write", l_write},
    {"fingerprint", l_fingerprint},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"memory", l_memory}, {"cache", l_cache}, {"files", l_files}, {"join", l_join}, {NULL, NULL}};

int luaopen_feral_core_source(lua_State *L) {
  source_push_metatable(L);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  return 1;
}
