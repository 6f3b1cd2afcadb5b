/* steps.c -- see steps.h. */
#include "steps.h"

/* ---- draws ---- */

/* The streams' top bit keeps clear of all others; each place in the list has 2^32 numbers of its own. */
static StepDraw draw_for(const StepsJob *job, int place) {
  uint64_t stream = UINT64_C(1) << 63 | (job->epoch & INT32_MAX) << 32 | (job->number & UINT32_MAX);
  return (StepDraw){.seed = job->seed, .stream = stream, .next = (uint64_t)place << 32, .calm = !job->training};
}

/* ---- what is to be done ---- */

/* One thing done to all pixels: a step, a run of steps that only move pixels, or a conversion (no step). */
typedef struct Task {
  const Step *step;
  StepDraw draw;
  bool is_warp;
  WarpMap map;
  const Step *edge; /* of a warp: the step that says what stands outside; NULL: none of them asks */
  Image to;         /* pixels is not used */
} Task;

typedef struct Tasks {
  int count;
  Task task[2 * STEPS_MOST + 1];
  WarpMap map; /* of all together */
} Tasks;

const char *const step_edges[] = {"clamp", "reflect", "constant", NULL};

static const WarpMap stay = {{1, 0, 0, 0, 1, 0}};

/* First through 'inner' (of the later step), then through 'outer' (of the one before it). */
static WarpMap through(const WarpMap *outer, const WarpMap *inner) {
  const double *a = outer->of, *b = inner->of;
  return (WarpMap){{a[0] * b[0] + a[1] * b[3], a[0] * b[1] + a[1] * b[4], a[0] * b[2] + a[1] * b[5] + a[2],
                    a[3] * b[0] + a[4] * b[3], a[3] * b[1] + a[4] * b[4], a[3] * b[2] + a[4] * b[5] + a[5]}};
}

static bool same_size(const Image *a, const Image *b) {
  return a->height == b->height && a->width == b->width && a->channels == b->channels;
}

static bool only_moves(const StepKind *kind) {
  return kind->map != NULL && kind->make == NULL;
}

/* The shape that a step gives; its type of pixels too. */
static bool shape_after(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  const StepKind *kind = s->kind;
  if (kind->takes != STEP_ANY) image->bytes = kind->takes == STEP_BYTES;
  if (only_moves(kind)) image->bytes = false;
  return kind->shape == NULL || kind->shape(s, image, message);
}

static void add(Tasks *t, Task task) {
  t->task[t->count++] = task;
}

/* Pixels of the other type where a step needs it. */
static void convert(Tasks *t, Image *now, bool bytes) {
  if (now->bytes == bytes) return;
  now->bytes = bytes;
  add(t, (Task){.to = *now});
}

static int edge_of(const Step *s) {
  return (int)step_value(s, s->kind->edge);
}

/* Whether two steps agree about what stands outside. */
static bool same_edge(const Step *a, const Step *b) {
  return a == NULL || b == NULL ||
         (edge_of(a) == edge_of(b) &&
          (edge_of(a) != WARP_CONSTANT || step_value(a, a->kind->edge + 1) == step_value(b, b->kind->edge + 1)));
}

/* Joins a step that only moves pixels to the one before where that does too. */
static void add_warp(Tasks *t, const Step *s, const WarpMap *map, const Image *to) {
  Task *before = t->count > 0 ? &t->task[t->count - 1] : NULL;
  const Step *edge = s->kind->edge > 0 ? s : NULL;
  if (before != NULL && before->is_warp && same_edge(before->edge, edge)) {
    before->map = through(&before->map, map);
    before->edge = before->edge != NULL ? before->edge : edge;
    before->to = *to;
  } else {
    add(t, (Task){.is_warp = true, .map = *map, .edge = edge, .to = *to});
  }
}

static bool moves_nothing(const WarpMap *map) {
  for (int i = 0; i < 6; i++)
    if (map->of[i] != stay.of[i]) return false;
  return true;
}

/* A warp that moves nothing is none; 'from' is the shape before it. */
static void drop_idle_warp(Tasks *t, const Image *from) {
  Task *last = &t->task[t->count - 1];
  if (last->is_warp && same_size(from, &last->to) && moves_nothing(&last->map)) t->count--;
}

/* Lists what steps first..end-1 do to an image of shape *now, which becomes that of the result. 'worst' counts a random
   warp even if it moves nothing. False with a message where a step cannot take what it gets. */
static bool list_tasks(StepsJob *job, int end, bool worst, Image *now, Tasks *t) {
  Image before_warp = *now;
  bool in_warp = false;
  t->count = 0;
  t->map = stay;
  for (int place = 0; place < end; place++) {
    const Step *s = &job->list->step[place];
    const StepKind *kind = s->kind;
    Image to = *now;
    if (!shape_after(s, &to, job->message)) return false;
    if (kind->random && !job->training && same_size(now, &to)) continue;
    if (kind->mix != NULL && !job->training) continue;
    if (in_warp && !only_moves(kind) && !worst) drop_idle_warp(t, &before_warp);
    Task task = {.step = s, .draw = draw_for(job, place), .to = to};
    if (only_moves(kind)) {
      if (!in_warp) convert(t, now, false), before_warp = *now;
    } else if (kind->takes != STEP_ANY) {
      convert(t, now, to.bytes);
    }
    WarpMap map = kind->map != NULL ? kind->map(s, &task.draw, now, &to) : stay;
    t->map = through(&t->map, &map);
    if (only_moves(kind))
      add_warp(t, s, &map, &to);
    else
      add(t, task);
    in_warp = only_moves(kind);
    *now = to;
  }
  if (in_warp && !worst) drop_idle_warp(t, &before_warp);
  return true;
}

/* ---- memory ---- */

/* Two images take turns, and a step's scratch; a mixing step needs the second sample and all that the steps before it do. */
typedef struct Memory {
  char *image[2], *scratch, *second, *of_second;
  size_t size;
} Memory;

static char *take(char *memory, size_t *used, size_t size) {
  char *place = memory != NULL ? memory + *used : NULL;
  *used += (size + 63) / 64 * 64;
  return place;
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

static int place_of_mix(const StepList *list) {
  for (int i = 0; i < list->count; i++)
    if (list->step[i].kind->mix != NULL) return i;
  return -1;
}

static Memory arrange(StepsJob *job, const Tasks *t, const Image *first, size_t of_second) {
  Memory m = {.size = 0};
  size_t image = 0, scratch = 0, second = 0;
  Image from = *first;
  for (int i = 0; i < t->count; i++) {
    const Task *task = &t->task[i];
    image = larger(image, image_bytes(&task->to));
    if (task->step != NULL && task->step->kind->scratch != NULL)
      scratch = larger(scratch, task->step->kind->scratch(task->step, &from, &task->to));
    if (task->step != NULL && task->step->kind->mix != NULL) second = image_bytes(&task->to);
    from = task->to;
  }
  for (int k = 0; k < 2; k++) m.image[k] = take(job->memory, &m.size, image);
  m.scratch = take(job->memory, &m.size, scratch);
  m.second = take(job->memory, &m.size, second);
  m.of_second = take(job->memory, &m.size, second > 0 ? of_second : 0);
  return m;
}

/* Bytes for the first 'end' steps. */
static size_t memory_for(StepsJob *job, int end, const Image *image) {
  Tasks tasks;
  Image now = *image;
  if (!list_tasks(job, end, true, &now, &tasks)) return 0;
  int mix = job->training ? place_of_mix(job->list) : -1;
  size_t of_second = mix >= 0 && mix < end ? memory_for(job, mix, image) : 0;
  return arrange(job, &tasks, image, of_second).size + 64;
}

/* ---- running ---- */

static void run_warp(const Task *task, const Image *from, real *pixels) {
  WarpSource source = {from->pixels, from->height, from->width, from->channels, WARP_CLAMP, {0}};
  if (task->edge != NULL) {
    source.edge = (WarpEdge)edge_of(task->edge);
    for (int c = 0; c < WARP_CHANNELS; c++) source.fill[c] = (real)step_value(task->edge, task->edge->kind->edge + 1);
  }
  warp_image(&source, &task->map, task->to.height, task->to.width, pixels);
}

static const char *run_tasks(StepsJob *job, int end, const Image *image, bool to_bytes, void *result);

/* Fetches a second sample, brings it as far as the first one has come, and mixes it in. */
static const char *run_mix(StepsJob *job, Task *task, const Image *image, real *pixels, const Memory *m) {
  if (job->partner.count == 0) return NULL;
  StepsJob other = {
      .list = job->list, .training = true, .seed = job->seed, .epoch = job->epoch, .memory = m->of_second};
  Image second;
  job->second = (long)(step_unit(&task->draw) * (double)job->partner.count);
  const char *error = job->partner.fetch(job->partner.from, job->second, &second, &other.number);
  Image shape = second;
  int place = (int)(task->step - job->list->step);
  Tasks tasks;
  if (error == NULL && !list_tasks(&other, place, true, &shape, &tasks))
    error = memcpy(job->message, other.message, STEP_MESSAGE);
  if (error == NULL && !same_size(&shape, image)) {
    snprintf(job->message, STEP_MESSAGE, "%s: the images differ in size; resize them first", task->step->kind->name);
    error = job->message;
  }
  if (error == NULL) error = run_tasks(&other, place, &second, false, m->second);
  if (error == NULL)
    task->step->kind->mix(task->step, &task->draw, image, pixels, (const real *)(const void *)m->second, &job->part);
  return error == other.message ? memcpy(job->message, other.message, STEP_MESSAGE) : error;
}

/* The last task that writes pixels anew, from which on they can lie where the result does; -1 where there is none. */
static int last_maker(const Tasks *t) {
  for (int i = t->count - 1; i >= 0; i--) {
    const Step *s = t->task[i].step;
    if (s == NULL || s->kind->make != NULL) return i;
  }
  return -1;
}

static void convert_pixels(const Image *from, bool bytes, void *pixels) {
  long n = from->height * from->width * from->channels;
  if (from->bytes == bytes)
    memcpy(pixels, from->pixels, image_bytes(from));
  else if (bytes)
    pixels_narrow(from->pixels, 1, pixels, n);
  else
    pixels_widen(from->pixels, pixels, n);
}

static const char *run_task(StepsJob *job, Task *task, const Image *from, void *pixels, const Memory *m) {
  const StepKind *kind = task->step != NULL ? task->step->kind : NULL;
  if (task->is_warp) return run_warp(task, from, pixels), NULL;
  if (kind == NULL) return convert_pixels(from, task->to.bytes, pixels), NULL;
  if (kind->make != NULL) return kind->make(task->step, &task->draw, from, &task->to, pixels, m->scratch), NULL;
  if (pixels != from->pixels) convert_pixels(from, from->bytes, pixels);
  Image image = task->to;
  image.pixels = pixels;
  if (kind->mix != NULL) return run_mix(job, task, &image, pixels, m);
  return kind->change(task->step, &task->draw, &image, pixels, m->scratch), NULL;
}

static const char *run_tasks(StepsJob *job, int end, const Image *image, bool to_bytes, void *result) {
  Tasks tasks;
  Image now = *image, shape = *image;
  if (!list_tasks(job, end, false, &shape, &tasks)) return job->message;
  Memory m = arrange(job, &tasks, image, 0);
  int maker = last_maker(&tasks), turn = 0;
  bool own = false; /* the pixels may be changed where they lie */
  job->map = tasks.map;
  for (int i = 0; i < tasks.count; i++) {
    Task *task = &tasks.task[i];
    bool anew = task->step == NULL || task->step->kind->make != NULL,
         in_result = i >= maker && task->to.bytes == to_bytes;
    void *pixels = in_result ? result : m.image[turn];
    if (!anew && own) pixels = (void *)(uintptr_t)now.pixels;
    const char *error = run_task(job, task, &now, pixels, &m);
    if (error != NULL) return error;
    now = task->to;
    now.pixels = pixels;
    own = true;
    if (pixels == m.image[turn]) turn = 1 - turn;
  }
  if (now.pixels != result) convert_pixels(&now, to_bytes, result);
  return NULL;
}

/* ---- what others call ---- */

bool steps_shape(const StepList *list, bool training, Image *image, char message[STEP_MESSAGE]) {
  StepsJob job = {.list = list, .training = training};
  Tasks tasks;
  if (list_tasks(&job, list->count, true, image, &tasks)) return true;
  memcpy(message, job.message, STEP_MESSAGE);
  return false;
}

size_t steps_memory(const StepList *list, bool training, const Image *image) {
  StepsJob job = {.list = list, .training = training};
  return memory_for(&job, list->count, image);
}

const char *steps_run(StepsJob *job, const Image *image, bool to_bytes, void *result) {
  job->second = -1;
  job->part = 1;
  return run_tasks(job, job->list->count, image, to_bytes, result);
}
