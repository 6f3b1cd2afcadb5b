/* signals.c -- see signals.h. */
#include "signals.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../base/interrupt.h"

static lua_State *volatile running; /* the thread whose code runs now; NULL: signals_start was not called */
static volatile sig_atomic_t presses, reading, interactive;
static volatile sig_atomic_t held;    /* how many hold() are open */
static volatile sig_atomic_t pending; /* the signal that came while held */
static pthread_t main_thread;

/* ---- the handler ---- */

/* False for one that comes within a tenth of a second of the last: 'timeout' and others send each signal twice. */
static bool is_new_press(void) {
  static struct timespec last;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double apart = (double)(now.tv_sec - last.tv_sec) + 1e-9 * (double)(now.tv_nsec - last.tv_nsec);
  last = now;
  return presses == 0 || apart > 0.1;
}

/* A closer interrupted at its first instruction would leave open what it is there to close. The walk ends at 64 levels,
   for a stack may have a million of them. */
static bool is_closing(lua_State *L) {
  lua_Debug ar;
  for (int level = 0; level < 64 && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "n", &ar);
    if (strcmp(ar.namewhat, "metamethod") == 0 && strcmp(ar.name, "close") == 0) return true;
  }
  return false;
}

static void stop(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (interrupted() && presses < 2 && is_closing(L)) return; /* the hook stays, for the instruction after the closer */
  lua_sethook(L, NULL, 0, 0);
  if (!interrupted()) return;
  luaL_where(L, 0);
  lua_pushliteral(L, "interrupted!");
  lua_concat(L, 2);
  lua_error(L);
}

static void interrupt(void) {
  interrupt_flag = 1;
  if (running != NULL) lua_sethook(running, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

/* Which press ends the process: the second, or where that would lose a prompt's variables the third. */
static int last_press(int signal) {
  return interactive && signal == SIGINT ? 3 : 2;
}

static void on_signal(int signal) {
  int saved = errno;
  if (!pthread_equal(pthread_self(), main_thread)) { /* the state is the main thread's */
    pthread_kill(main_thread, signal);
  } else if (reading) {
    interrupt_flag = 1;
  } else if (is_new_press()) {
    presses++;
    if (presses >= last_press(signal)) _exit(128 + signal);
    if (held > 0 && presses == 1)
      pending = signal;
    else
      interrupt();
  }
  errno = saved;
}

static void install(int signal, void (*handler)(int), int flags, struct sigaction *before) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, before);
}

/* ---- what else catches errors, or changes the running thread ---- */

/* The end of a protected call: raises again while an interrupt is on its way to the top, else returns 'count' values.
   The error of a call that failed is at the top of the stack. */
static int hand_on(lua_State *L, bool ok, int count) {
  running = L;
  if (!interrupted()) return count;
  if (ok || !lua_isstring(L, -1)) return luaL_error(L, "interrupted!"); /* an xpcall's handler may give anything */
  return lua_error(L);
}

/* After lua_pcallk: the results lie above the first 'skip' values, or the error at the top. */
static int after_pcall(lua_State *L, int status, lua_KContext skip) {
  if (status == LUA_OK || status == LUA_YIELD) return hand_on(L, true, lua_gettop(L) - (int)skip);
  hand_on(L, false, 0);
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

/* pcall(f, ...) */
static int l_pcall(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, 1);
  lua_insert(L, 1);
  return after_pcall(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, after_pcall), 0);
}

/* xpcall(f, handler, ...) */
static int l_xpcall(lua_State *L) {
  int count = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2); /* f, handler, true, f, arguments */
  return after_pcall(L, lua_pcallk(L, count - 2, LUA_MULTRET, 2, 2, after_pcall), 2);
}

/* load(...): a reader function that fails makes it return nil and the error. 'Upvalue 1' is Lua's own. */
static int l_load(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return hand_on(L, !lua_isnil(L, 1), lua_gettop(L));
}

static lua_State *check_thread(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTHREAD);
  return lua_tothread(L, 1);
}

/* Runs co with the 'count' values at the top of L. True: what it returned or yielded, *count values, lies on L; false:
   one error does. */
static bool resume(lua_State *L, lua_State *co, int *count) {
  int results = 0;
  if (!lua_checkstack(co, *count)) {
    lua_pushliteral(L, "too many arguments to resume");
    return false;
  }
  lua_xmove(L, co, *count);
  running = co;
  int status = lua_resume(co, L, *count, &results);
  running = L;
  bool ok = status == LUA_OK || status == LUA_YIELD;
  if (ok && !lua_checkstack(L, results + 1)) {
    lua_pop(co, results);
    lua_pushliteral(L, "too many results to resume");
    return false;
  }
  *count = ok ? results : 1;
  lua_xmove(co, L, *count);
  return ok;
}

/* coroutine.resume(co, ...) */
static int l_resume(lua_State *L) {
  lua_State *co = check_thread(L);
  int count = lua_gettop(L) - 1;
  bool ok = resume(L, co, &count);
  hand_on(L, ok, 0);
  lua_pushboolean(L, ok);
  lua_insert(L, ok ? -count - 1 : -2);
  return ok ? count + 1 : 2;
}

/* Closes what co has open. True, or false and an error at the top of L. */
static bool reset(lua_State *L, lua_State *co) {
  running = co;
  int status = lua_resetthread(co);
  running = L;
  if (status != LUA_OK) lua_xmove(co, L, 1);
  return status == LUA_OK;
}

static bool is_dead_by_error(lua_State *co) {
  int status = lua_status(co);
  return status != LUA_OK && status != LUA_YIELD;
}

/* What coroutine.wrap returns: an error in the coroutine closes it and goes on to the caller, a message with his line.
 */
static int l_wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int count = lua_gettop(L);
  if (resume(L, co, &count)) return hand_on(L, true, count);
  if (is_dead_by_error(co)) {
    lua_xmove(L, co, 1); /* closers may replace the error */
    reset(L, co);
  }
  if (lua_type(L, -1) == LUA_TSTRING && !interrupted()) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* coroutine.wrap(f) */
static int l_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, l_wrapped, 1);
  return 1;
}

static bool is_suspended(lua_State *L, lua_State *co) {
  lua_Debug ar;
  if (co == L) return false;
  return lua_status(co) != LUA_OK || !lua_getstack(co, 0, &ar); /* else it has resumed another */
}

/* coroutine.close(co) */
static int l_close(lua_State *L) {
  lua_State *co = check_thread(L);
  if (!is_suspended(L, co)) return luaL_error(L, "cannot close a %s coroutine", co == L ? "running" : "normal");
  bool ok = reset(L, co);
  hand_on(L, ok, 0);
  lua_pushboolean(L, ok);
  if (ok) return 1;
  lua_insert(L, -2);
  return 2;
}

static const luaL_Reg base[] = {{"pcall", l_pcall}, {"xpcall", l_xpcall}, {NULL, NULL}};
static const luaL_Reg coroutines[] = {{"resume", l_resume}, {"wrap", l_wrap}, {"close", l_close}, {NULL, NULL}};

/* ---- for the host ---- */

void signals_start(lua_State *L) {
  main_thread = pthread_self();
  running = L;
  lua_pushglobaltable(L);
  luaL_setfuncs(L, base, 0);
  lua_getfield(L, -1, "load");
  lua_pushcclosure(L, l_load, 1);
  lua_setfield(L, -2, "load");
  lua_getfield(L, -1, LUA_COLIBNAME);
  luaL_setfuncs(L, coroutines, 0);
  lua_pop(L, 2);
  install(SIGINT, on_signal, 0, NULL); /* no SA_RESTART: a read that waits for a line must end */
}

void signals_stop(void) {
  install(SIGINT, SIG_DFL, 0, NULL);
  running = NULL;
}

void signals_set_interactive(bool is) {
  interactive = is;
}
void signals_set_reading(bool is) {
  reading = is;
}

/* ---- feral.core.signals ---- */

static struct sigaction before_int, before_term;

/* release(): ends one hold(). */
static int l_release(lua_State *L) {
  (void)L;
  if (held == 0 || --held > 0) return 0;
  sigaction(SIGINT, &before_int, NULL);
  sigaction(SIGTERM, &before_term, NULL);
  presses = pending = 0;
  return 0;
}

/* hold() -> an object for <close> that calls release(). From here on the first SIGINT or SIGTERM does no more than what
   pending() tells; the second ends the process at once, with 130 or 143 (at the prompt Ctrl-C first interrupts). */
static int l_hold(lua_State *L) {
  main_thread = pthread_self();
  lua_pushvalue(L, lua_upvalueindex(1));
  if (held++ > 0) return 1;
  presses = pending = 0;
  install(SIGINT, on_signal, SA_RESTART, &before_int); /* files are written whole */
  install(SIGTERM, on_signal, SA_RESTART, &before_term);
  return 1;
}

/* pending() -> "INT" or "TERM" when one has come since hold(), else nil */
static int l_pending(lua_State *L) {
  if (pending == 0) return 0;
  lua_pushstring(L, pending == SIGTERM ? "TERM" : "INT");
  return 1;
}

/* stop(signal, message): does what pending() asked for, now that all is saved: ends the program with 130 or 143 and the
   message on standard error. At the prompt, and if the signal is "INT", it raises the message past every pcall instead.
 */
static int l_stop(lua_State *L) {
  int signal = strcmp(luaL_checkstring(L, 1), "TERM") == 0 ? SIGTERM : SIGINT;
  const char *message = luaL_optstring(L, 2, "interrupted!");
  while (held > 0) l_release(L);
  if (interactive && signal == SIGINT) {
    interrupt_flag = 1;
    lua_settop(L, 2);
    return lua_error(L);
  }
  signals_stop();
  fprintf(stderr, "feral: %s\n", message);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, LUA_OSLIBNAME);
  lua_getfield(L, -1, "exit"); /* not exit() here: closing the state may take this very module out of memory */
  lua_pushinteger(L, 128 + signal);
  lua_pushboolean(L, 1);
  lua_call(L, 2, 0);
  return 0;
}

bool signals_settle(lua_State *L) {
  bool was = interrupted();
  while (held > 0) l_release(L);
  lua_sethook(L, NULL, 0, 0);
  running = L;
  presses = pending = interrupt_flag = 0;
  return was;
}

static const luaL_Reg functions[] = {
    {"hold", NULL}, {"release", l_release}, {"pending", l_pending}, {"stop", l_stop}, {NULL, NULL}};

int open_signals(lua_State *L) {
  luaL_newlib(L, functions);
  lua_newtable(L); /* the guard, one for all, and its metatable */
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_release);
  lua_setfield(L, -2, "__close");
  lua_setmetatable(L, -2);
  lua_pushcclosure(L, l_hold, 1);
  lua_setfield(L, -2, "hold");
  return 1;
}
