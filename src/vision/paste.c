/*
** paste.c -- one image laid onto another through an affine map, its border faded out: what composed training pictures are
** made of.
*/
#include <math.h>

#include "../base/parallel.h"
#include "../kernels/image/warp.h"
#include "../tensor/images.h"

typedef enum PasteShape { PASTE_RECTANGLE, PASTE_ELLIPSE } PasteShape;

typedef struct Paste {
  const uint8_t *pixels; /* (height,width,channels) */
  long height, width, channels;
  WarpMap map; /* from pixels of the target to those of the source */
  PasteShape shape;
  real feather, opacity;                             /* feather: over so many pixels of the source it fades out */
  real gain[IMAGE_CHANNELS], offset[IMAGE_CHANNELS]; /* a channel each of the target */
} Paste;

/* ---- kernels: target (C,H,W) with any strides; the source has its channels, or one for all ---- */

/* The part of the source in the result at x, y, from 0 at its border to the opacity. */
static inline real weight_at(const Paste *p, real x, real y) {
  real half_width = (real)p->width / 2, half_height = (real)p->height / 2, inside;
  x = (real)fabs((double)(x + (real)0.5 - half_width));
  y = (real)fabs((double)(y + (real)0.5 - half_height));
  if (p->shape == PASTE_RECTANGLE) {
    inside = half_width - x < half_height - y ? half_width - x : half_height - y;
  } else {
    real across = x / half_width, down = y / half_height;
    inside = (1 - (real)sqrt((double)(across * across + down * down))) *
             (half_width < half_height ? half_width : half_height);
  }
  if (!(inside > 0)) return 0;
  return inside < p->feather ? p->opacity * inside / p->feather : p->opacity;
}

static inline long held(long i, long n) {
  return i < 0 ? 0 : i < n ? i : n - 1;
}

/* Channel k of the source at x, y, which lies inside, interpolated bilinearly. */
static inline real sample(const Paste *p, long k, real x, real y) {
  real left = (real)floor((double)x), top = (real)floor((double)y);
  long x0 = held((long)left, p->width), x1 = held((long)left + 1, p->width);
  long y0 = held((long)top, p->height), y1 = held((long)top + 1, p->height);
  const uint8_t *upper = p->pixels + y0 * p->width * p->channels, *lower = p->pixels + y1 * p->width * p->channels;
  real right_part = x - left, low_part = y - top;
  real a = upper[x0 * p->channels + k], b = upper[x1 * p->channels + k];
  real c = lower[x0 * p->channels + k], d = lower[x1 * p->channels + k];
  real above = a + right_part * (b - a), below = c + right_part * (d - c);
  return above + low_part * (below - above);
}

static inline uint8_t to_byte(real v) {
  return (uint8_t)(v > 0 ? (v < 255 ? v + (real)0.5 : 255) : 0);
}

static void paste_row(const Paste *p, const Tensor *target, long row, long first, long last) {
  const double *m = p->map.of;
  uint8_t *line = tensor_bytes(target) + row * target->stride[1];
  for (long column = first; column < last; column++) {
    real x = (real)(m[0] * (double)column + m[1] * (double)row + m[2]);
    real y = (real)(m[3] * (double)column + m[4] * (double)row + m[5]);
    real weight = weight_at(p, x, y);
    if (weight == 0) continue;
    for (long c = 0; c < target->shape[0]; c++) {
      uint8_t *pixel = line + column * target->stride[2] + c * target->stride[0];
      real value = sample(p, p->channels == 1 ? 0 : c, x, y) * p->gain[c] + p->offset[c];
      value = value < 0 ? 0 : value > 255 ? 255 : value;
      *pixel = to_byte((real)*pixel + weight * (value - (real)*pixel));
    }
  }
}

typedef struct Region {
  long left, top, right, bottom;
} Region;

/* The part of the target that the source may reach: its corners, mapped back. */
static Region region_of(const Paste *p, const Tensor *target) {
  const double *m = p->map.of, size = m[0] * m[4] - m[1] * m[3];
  double left = INFINITY, right = -INFINITY, top = INFINITY, bottom = -INFINITY;
  for (int corner = 0; corner < 4; corner++) {
    double x = (corner & 1 ? (double)p->width - 0.5 : -0.5) - m[2];
    double y = (corner & 2 ? (double)p->height - 0.5 : -0.5) - m[5];
    double column = (m[4] * x - m[1] * y) / size, row = (m[0] * y - m[3] * x) / size;
    left = fmin(left, column);
    right = fmax(right, column);
    top = fmin(top, row);
    bottom = fmax(bottom, row);
  }
  double width = (double)target->shape[2], height = (double)target->shape[1];
  return (Region){(long)fmin(fmax(floor(left), 0), width), (long)fmin(fmax(floor(top), 0), height),
                  (long)fmax(fmin(ceil(right) + 1, width), 0), (long)fmax(fmin(ceil(bottom) + 1, height), 0)};
}

static void paste(const Paste *p, const Tensor *target) {
  Region r = region_of(p, target);
#pragma omp parallel for if ((r.right - r.left) * (r.bottom - r.top) > PARALLEL_MIN)
  for (long row = r.top; row < r.bottom; row++) paste_row(p, target, row, r.left, r.right);
}

/* ---- bindings ---- */

static const Tensor *check_target(lua_State *L, int arg) {
  if (!tensor_is(L, arg)) tensor_error(L, "image.paste: the target must be a tensor, got %s", luaL_typename(L, arg));
  const Tensor *t = tensor_check_target(L, arg);
  if (t->dtype != DTYPE_U8 || t->ndim != 3)
    tensor_error(L, "image.paste: the target must be u8 C x H x W, got %s %s", dtype_name(t->dtype),
                 tensor_describe(L, t));
  return t;
}

static void check_map(lua_State *L, int arg, WarpMap *map) {
  luaL_checktype(L, arg, LUA_TTABLE);
  for (int i = 0; i < 6; i++) {
    lua_geti(L, arg, i + 1);
    map->of[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
    if (!isfinite(map->of[i])) tensor_error(L, "image.paste: number %d of the map is not finite", i + 1);
  }
  if (map->of[0] * map->of[4] == map->of[1] * map->of[3])
    tensor_error(L, "image.paste: the map takes the plane to a line");
}

/* paste(target, source, map, shape, feather, opacity, gain, offset) -> target; shape 0 rectangle, 1 ellipse */
static int l_paste(lua_State *L) {
  const Tensor *target = check_target(L, 1);
  Paste p = {.shape = luaL_checkinteger(L, 4) == 0 ? PASTE_RECTANGLE : PASTE_ELLIPSE,
             .feather = (real)luaL_checknumber(L, 5),
             .opacity = (real)luaL_checknumber(L, 6)};
  lua_settop(L, 8);
  check_map(L, 3, &p.map);
  images_check_per_channel(L, 7, "image.paste: gain", target->shape[0], 1, -1e30, p.gain);
  images_check_per_channel(L, 8, "image.paste: offset", target->shape[0], 0, -1e30, p.offset);
  const Tensor *source = images_push(L, 2, "image.paste");
  if (source->dtype != DTYPE_U8 || source->shape[0] != 1 ||
      (source->shape[1] != 1 && source->shape[1] != target->shape[0]))
    tensor_error(L, "image.paste: the source must be u8 1 x H x W or %d x H x W, got %s %s", (int)target->shape[0],
                 dtype_name(source->dtype), tensor_describe(L, lua_touserdata(L, 2)));
  p.pixels = source->data;
  p.channels = source->shape[1];
  p.height = source->shape[2];
  p.width = source->shape[3];
  paste(&p, target);
  lua_settop(L, 1);
  return 1;
}

static const luaL_Reg functions[] = {{"paste", l_paste}, {NULL, NULL}};

int luaopen_feral_core_paste(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
