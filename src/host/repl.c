/* repl.c -- see repl.h. The only user of readline; READLINE=no builds without it. */
#include "repl.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef FERAL_READLINE
#  include <readline/history.h>
#  include <readline/readline.h>
#endif

#include "../base/alloc.h"
#include "../base/interrupt.h"
#include "signals.h"

static long lines_read;

/* Pushes a line of standard input without its end, or nil when there is none. */
static void push_plain_line(lua_State *L, const char *prompt) {
  char piece[1024];
  luaL_Buffer line;
  fputs(prompt, stdout);
  fflush(stdout);
  luaL_buffinit(L, &line);
  while (fgets(piece, sizeof piece, stdin) != NULL) {
    size_t length = strlen(piece);
    bool whole = length > 0 && piece[length - 1] == '\n';
    luaL_addlstring(&line, piece, whole ? length - 1 : length);
    if (!whole) continue;
    luaL_pushresult(&line);
    return;
  }
  clearerr(stdin);
  luaL_pushresult(&line);
  if (lua_rawlen(L, -1) > 0 && !interrupted()) return; /* the last line had no end */
  if (interrupted()) puts("");                         /* behind the ^C */
  lua_pop(L, 1);
  lua_pushnil(L);
}

#ifdef FERAL_READLINE

/* ---- history ---- */

enum { HISTORY_LINES = 2000 };
static char history_path[4096]; /* "": kept nowhere */

static void find_history_path(void) {
  const char *own = getenv("FERAL_HISTORY"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  int length = 0;
  if (own != NULL)
    length = snprintf(history_path, sizeof history_path, "%s", own);
  else if (state != NULL && state[0] == '/')
    length = snprintf(history_path, sizeof history_path, "%s/feral_history", state);
  else if (home != NULL)
    length = snprintf(history_path, sizeof history_path, "%s/.feral_history", home);
  if (length >= (int)sizeof history_path) history_path[0] = '\0';
}

static void start_history(void) {
  find_history_path();
  using_history();
  stifle_history(HISTORY_LINES);
  if (history_path[0] == '\0' || read_history(history_path) != 0) return;
  if (history_length == HISTORY_LINES) history_truncate_file(history_path, HISTORY_LINES);
}

/* Each line is written when it is typed: nothing is lost if the program ends badly. */
static void remember(const char *line) {
  HIST_ENTRY *last = history_length > 0 ? history_get(history_base + history_length - 1) : NULL;
  if (line[strspn(line, " \t\n")] == '\0' || (last != NULL && strcmp(last->line, line) == 0)) return;
  add_history(line);
  int fd = history_path[0] != '\0' ? open(history_path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
  if (fd < 0) return;
  dprintf(fd, "%s\n", line);
  close(fd);
}

/* ---- completion ---- */

static lua_State *completer_state;
static int completer =
    LUA_NOREF; /* in the registry: repl.complete(before, word) -> list of words, nil for file names */

/* The next word of the list at the top of the stack; readline frees it. */
static char *next_word(const char *text, int is_continued) {
  static lua_Integer i;
  (void)text;
  i = is_continued ? i + 1 : 1;
  lua_rawgeti(completer_state, -1, i);
  const char *word = lua_tostring(completer_state, -1);
  char *copy = word != NULL ? strdup(word) : NULL;
  lua_pop(completer_state, 1);
  return copy;
}

static char **complete(const char *text, int start, int end) {
  lua_State *L = completer_state;
  char **words = NULL;
  (void)end;
  if (!lua_checkstack(L, 8)) return NULL;
  int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, completer);
  lua_pushlstring(L, rl_line_buffer, (size_t)start);
  lua_pushstring(L, text);
  bool ok = lua_pcall(L, 2, 1, 0) == LUA_OK;
  rl_attempted_completion_over = !ok || lua_istable(L, -1);
  if (ok && lua_istable(L, -1)) words = rl_completion_matches(text, next_word);
  rl_completion_append_character = '\0';
  lua_settop(L, top);
  return words;
}

/* ---- lines ---- */

/* readline's source of keys. Ctrl-C empties the line and ends it: Enter, and where readline asks for more the end of the
   input. */
static bool enter_given;
static int read_key(FILE *stream) {
  unsigned char key;
  for (;;) {
    if (interrupted()) {
      rl_replace_line("", 0);
      if (enter_given) return EOF;
      enter_given = true;
      return '\n';
    }
    ssize_t count = read(fileno(stream), &key, 1);
    if (count == 1) return key;
    if (count == 0 || errno != EINTR) return EOF;
    rl_check_signals();
  }
}

static void start_editor(void) {
  rl_readline_name = "feral";
  rl_getc_function = read_key;
  rl_attempted_completion_function = complete;
  rl_completer_word_break_characters = " \t\n\"'><=;+-*/%^~#{}()[],&|";
  start_history();
}

static void push_line(lua_State *L, const char *prompt) {
  static char *line; /* freed when the next is read: pushing it may fail */
  if (!isatty(STDIN_FILENO)) {
    push_plain_line(L, prompt);
    return;
  }
  if (rl_readline_name == NULL || strcmp(rl_readline_name, "feral") != 0) start_editor();
  free(line);
  enter_given = false;
  completer_state = L;
  line = readline(prompt);
  if (line != NULL && !interrupted()) remember(line);
  lua_pushstring(L, line); /* nil for NULL */
}

#else

static int completer = LUA_NOREF;
static void push_line(lua_State *L, const char *prompt) {
  push_plain_line(L, prompt);
}

#endif

/* ---- for repl.lua ---- */

/* read(prompt) -> a line; nil at the end of the input; false after Ctrl-C */
static int l_read(lua_State *L) {
  const char *prompt = luaL_checkstring(L, 1);
  signals_set_reading(true);
  push_line(L, prompt);
  signals_set_reading(false);
  lines_read++;
  if (signals_settle(L)) lua_pushboolean(L, 0);
  return 1;
}

/* call(handler, f, ...) -> true, results of f; or false, result of handler. What xpcall does, at the level to which
   Ctrl-C comes back. */
static int l_call(lua_State *L) {
  int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
  signals_settle(L);
  lua_pushboolean(L, status == LUA_OK);
  lua_replace(L, 1);
  return lua_gettop(L);
}

static const luaL_Reg functions[] = {{"read", l_read}, {"call", l_call}, {NULL, NULL}};

/* Leaves repl.run and the table of functions that it takes on the stack. */
static int l_load(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "feral.host.repl");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "complete");
  completer = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_getfield(L, -1, "run");
  luaL_newlib(L, functions);
  return 2;
}

/* An error of the dialogue's own, outside what it runs. Where memory is the matter its limits are lifted, for the line
   that would lift them could not even be read. */
static void recover(lua_State *L) {
  void *pool;
  const char *message = lua_tostring(L, -1);
  fprintf(stderr, "%s\n", message != NULL ? message : "error without a message");
  bool memory = message != NULL && strcmp(message, "not enough memory") == 0;
  lua_pop(L, 1);
  if (memory && lua_getallocf(L, &pool) == pool_alloc) ((Pool *)pool)->cap = 0, ((Pool *)pool)->fail_from = 0;
}

void repl_run(lua_State *L) {
  signals_set_interactive(true);
  lua_pushcfunction(L, l_load);
  if (lua_pcall(L, 0, 2, 0) != LUA_OK) {
    recover(L);
    return;
  }
  for (int failures = 0; failures < 2;) {
    long before = lines_read;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    int status = lua_pcall(L, 1, 0, 0);
    signals_settle(L);
    if (status == LUA_OK) break;
    recover(L);
    failures = lines_read > before ? 1 : failures + 1;
  }
  lua_pop(L, 2);
}
