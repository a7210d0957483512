/* load: what bench/ puts on a broker, cheap enough not to be the thing that is measured. bench/load.py builds and
 * runs it; by hand: cc -O2 -o load load.c
 *
 * It knows nothing of Kafka but this: requests and responses begin with their size (4 bytes, big endian), and a
 * connection's responses come in the order of its requests. What is asked is built elsewhere and is in TARGETS, a
 * file that has, for each request, a line "IPV4 PORT SIZE" and SIZE bytes, the request's own size in front.
 *
 *   load ask TARGETS CONNECTIONS IN_FLIGHT RATE WARMUP_S SECONDS ERROR_AT
 *     Connection i sends the requests i, i + CONNECTIONS, i + 2 * CONNECTIONS ... of the file, over and over, to the
 *     address of the first of them, and has at most IN_FLIGHT unanswered. With a RATE, which is of all connections
 *     together in requests a second, they go out by the clock; 0 is as fast as they are answered. A request that was
 *     due while its connection had no room is timed from when it was due: a broker that stands still makes all of
 *     those late.
 *
 *   load fan TARGETS CONSUMERS RATE WARMUP_S SECONDS ERROR_AT END_AT OFFSET_AT SESSION_AT ID_AT
 *     The file's first request is a Produce of one message to an empty partition; it goes out by the clock. The
 *     second is a Fetch of that partition from offset 0; so many consumers send it, each from where it is. Each
 *     message is timed from when it was sent until each consumer has it. Where the Fetch asks for a session, each goes
 *     on in its own.
 *
 * ERROR_AT is where in a response to look for an error code (2 bytes), counted from behind its size; -1: nowhere.
 * END_AT is where a response to the Fetch has the partition's end, OFFSET_AT where in the Fetch its offset is, size
 * included (8 bytes each). SESSION_AT is where in the Fetch its session's id and epoch are (4 bytes each), ID_AT where
 * a response has the id; -1, -1: there are no sessions. What happens in the first WARMUP_S seconds is not counted. Then "measuring" is printed,
 * and in the end one line of JSON. Exit code 1, and a line on stderr, where a connection fails or nothing comes for
 * 10 s.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 512, READ_BYTES = 1 << 20, EVENTS = 512, STEPS = 64, RANGES = 40 * STEPS };
static const double STALL_S = 10;

typedef struct {
  struct sockaddr_in address;
  uint8_t *bytes;
  size_t size;
} Request;

typedef struct {
  int fd, first, next; /* which requests it sends: the first, and the one that comes next */
  const Request *sending;
  size_t sent; /* bytes of it that are out; it is `sending` as long as that is not all */
  int room, waiting; /* how many may be unanswered; how many are */
  double due, free_since; /* when the next one goes out; since when there has been room for it */
  double *began;          /* a ring of `room`: since when each unanswered request is timed */
  unsigned oldest;
  size_t got, need; /* of the response that is coming in, its size included */
  uint8_t head[HEAD_BYTES];
  int wants_out;
  Request own; /* a consumer's Fetch, in which its offset is written */
  int64_t offset;
  uint32_t epoch;
} Connection;

static Request *requests;
static int request_count, stride, is_fan, poller;
static double rate, measured_from, now_s;
static long error_at, end_at, offset_at, session_at, id_at;
/* What is counted. Latencies by their size: 64 ranges for each doubling, so within 1.6 %. */
static long count, failed, last_error, ranges[RANGES];
static double bytes_total, latency_sum, latency_max;
/* When each message of `fan` was sent. */
static double *sent_at;
static long sent_count, sent_max, wanted_count;

static void fail(const char *what) {
  fprintf(stderr, "%s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

static double clock_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_s(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void note(double latency_s) {
  uint64_t us = latency_s * 1e6 * 16; /* sixteenths of a microsecond */
  int range = us;
  if (us >= STEPS) {
    int shift = 63 - __builtin_clzll(us) - 6;
    range = (shift + 1) * STEPS + ((us >> shift) & (STEPS - 1));
  }
  ranges[range < RANGES ? range : RANGES - 1]++;
  latency_sum += latency_s;
  if (latency_s > latency_max)
    latency_max = latency_s;
}

/* The latency that a share of all do not exceed, in milliseconds: the middle of its range. */
static double percentile(double share, long total) {
  long wanted = share * total, seen = 0;
  for (int range = 0; range < RANGES; range++)
    if ((seen += ranges[range]) > wanted) {
      int shift = range / STEPS - 1;
      double us = shift < 0 ? range + .5 : (double)((uint64_t)(STEPS + range % STEPS) << shift) + (1 << shift) / 2.;
      return us / 16e3;
    }
  return latency_max * 1e3;
}

static int64_t read_number(const uint8_t *at, int size) {
  uint64_t value = 0;
  for (int i = 0; i < size; i++)
    value = value << 8 | at[i];
  return (int64_t)value;
}

static void write_number(uint8_t *at, int size, uint64_t value) {
  for (int i = 0; i < size; i++)
    at[i] = value >> 8 * (size - 1 - i);
}

static void load_requests(const char *path) {
  char host[64];
  int port, found;
  size_t size;
  FILE *file = fopen(path, "rb");
  if (!file)
    fail(path);
  while ((found = fscanf(file, "%63s %d %zu", host, &port, &size)) == 3 && fgetc(file) == '\n') {
    requests = realloc(requests, (request_count + 1) * sizeof *requests);
    Request *made = &requests[request_count++];
    memset(made, 0, sizeof *made);
    made->address.sin_family = AF_INET;
    made->address.sin_port = htons(port);
    made->size = size;
    made->bytes = malloc(size);
    if (inet_pton(AF_INET, host, &made->address.sin_addr) != 1 || fread(made->bytes, 1, size, file) != size)
      fail("the file of requests is malformed");
  }
  if (found != EOF || !request_count)
    fail("the file of requests is malformed");
  fclose(file);
}

static void open_connection(Connection *c, const Request *target, int room) {
  int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0 || connect(c->fd, (const void *)&target->address, sizeof target->address))
    fail("cannot connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  c->room = room;
  c->began = calloc(room, sizeof *c->began);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event))
    fail("epoll_ctl");
}

static void want_out(Connection *c, int wanted) {
  struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
  if (c->wants_out != wanted && epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event))
    fail("epoll_ctl");
  c->wants_out = wanted;
}

/* Whether all of the request that was begun is out. */
static int push(Connection *c) {
  while (c->sent < c->sending->size) {
    ssize_t n = send(c->fd, c->sending->bytes + c->sent, c->sending->size - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      want_out(c, 1);
      return 0;
    }
    if (n < 0)
      fail("send");
    c->sent += n;
  }
  if (now_s >= measured_from)
    bytes_total += c->sending->size;
  c->sending = NULL;
  want_out(c, 0);
  return 1;
}

/* Send what is due and has room. `interval` is what lies between two requests of this connection; 0: nothing. */
static void go_on(Connection *c, double interval) {
  if (c->sending) {
    if (!push(c))
      return;
    c->free_since = now_s;
  }
  while (c->waiting < c->room && (!interval || c->due <= now_s + 1e-6)) {
    double began = interval && c->free_since > c->due ? c->due : now_s;
    c->began[(c->oldest + c->waiting++) % c->room] = began;
    c->due += interval;
    if (c->own.bytes) {
      c->sending = &c->own;
    } else {
      c->sending = &requests[c->next];
      c->next = c->next + stride < request_count ? c->next + stride : c->first;
      if (is_fan && sent_count < sent_max) {
        sent_at[sent_count++] = began;
        wanted_count += began >= measured_from;
      }
    }
    c->sent = 0;
    if (!push(c))
      return;
  }
}

static void answered(Connection *c) {
  size_t size = c->need - 4;
  if (error_at >= 0 && size >= (size_t)error_at + 2 && (!is_fan || !c->own.bytes)) {
    long error = (int16_t)read_number(c->head + 4 + error_at, 2);
    if (error) {
      failed++;
      last_error = error;
    }
  }
  if (c->waiting == c->room)
    c->free_since = now_s;
  double began = c->began[c->oldest];
  c->oldest = (c->oldest + 1) % c->room;
  c->waiting--;
  if (!is_fan) {
    if (now_s >= measured_from) {
      count++;
      note(now_s - began);
    }
  } else if (c->own.bytes) {
    /* In a session there may be nothing in it. */
    int64_t end = size >= (size_t)end_at + 8 ? read_number(c->head + 4 + end_at, 8) : session_at >= 0 ? c->offset : -1;
    long id = session_at >= 0 ? read_number(c->head + 4 + id_at, 4) : 0;
    if (end < c->offset || end > sent_count || (session_at >= 0 && !id)) {
      errno = 0;
      fail("a Fetch was answered with an end that cannot be");
    }
    for (; c->offset < end; c->offset++)
      if (sent_at[c->offset] >= measured_from) {
        count++;
        note(now_s - sent_at[c->offset]);
      }
    write_number(c->own.bytes + offset_at, 8, end);
    if (session_at >= 0) {
      write_number(c->own.bytes + session_at, 4, id);
      write_number(c->own.bytes + session_at + 4, 4, ++c->epoch);
    }
  }
}

static int receive(Connection *c) {
  static uint8_t buffer[READ_BYTES];
  ssize_t left = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
  if (left < 0 && errno == EAGAIN)
    return 0;
  if (left <= 0) {
    errno = left ? errno : 0;
    fail("the broker closed a connection");
  }
  now_s = clock_s();
  int answers = 0;
  for (const uint8_t *at = buffer; left > 0;) {
    size_t wanted = c->got < 4 ? 4 - c->got : c->need - c->got, n = wanted < (size_t)left ? wanted : (size_t)left;
    if (c->got < HEAD_BYTES)
      memcpy(c->head + c->got, at, n < HEAD_BYTES - c->got ? n : HEAD_BYTES - c->got);
    c->got += n, at += n, left -= n;
    if (c->got == 4)
      c->need = 4 + (size_t)read_number(c->head, 4);
    if (c->got >= 4 && c->got == c->need) {
      c->got = 0;
      answers++;
      if (!c->waiting) {
        errno = 0;
        fail("an answer to nothing that was asked");
      }
      answered(c);
    }
  }
  return answers;
}

/* Wait for something to happen, or for the clock: epoll's own timeout is in whole milliseconds. */
static int wait_for(struct epoll_event *events, double until) {
  double left = until - clock_s();
  struct timespec timeout = {left > 0 ? (time_t)left : 0, left > 0 ? (long)((left - (time_t)left) * 1e9) : 0};
  struct pollfd watched = {.fd = poller, .events = POLLIN};
  if (left > 0)
    ppoll(&watched, 1, &timeout, NULL);
  int found = epoll_wait(poller, events, EVENTS, 0);
  now_s = clock_s();
  return found < 0 ? 0 : found;
}

static void run(Connection *connections, int total, double warmup_s, double seconds) {
  static struct epoll_event events[EVENTS];
  double began = clock_s(), cpu = 0, last = began, ended;
  /* By the clock go all connections of `ask`, in turn, and the first one of `fan`. */
  int paced = !rate ? 0 : is_fan ? 1 : total, is_measuring = 0;
  double interval = rate ? paced / rate : 0;
  long ticks = 0;
  now_s = began;
  measured_from = began + warmup_s;
  double end = measured_from + seconds;
  for (int i = 0; i < total; i++) {
    connections[i].due = connections[i].free_since = began + (i < paced ? i / rate : 0);
    go_on(&connections[i], i < paced ? interval : 0);
  }
  /* After the end consumers still get what has been sent, for a second; and something is waited for in any case. */
  while (now_s < end || !count || (is_fan && count < (total - 1) * wanted_count && now_s < end + 1)) {
    double next = now_s < end ? end : now_s < end + 1 ? end + 1 : now_s + 1;
    if (!is_measuring && measured_from < next)
      next = measured_from;
    if (paced && now_s < end && began + ticks / rate < next)
      next = began + ticks / rate;
    int found = wait_for(events, next);
    if (!is_measuring && now_s >= measured_from) {
      is_measuring = 1;
      cpu = cpu_s();
      puts("measuring");
      fflush(stdout);
    }
    for (int i = 0; i < found; i++) {
      Connection *c = events[i].data.ptr;
      if (events[i].events & ~EPOLLOUT && receive(c))
        last = now_s;
      if (now_s < end || c->own.bytes)
        go_on(c, c - connections < paced ? interval : 0);
    }
    for (; paced && now_s < end && began + ticks / rate <= now_s; ticks++)
      go_on(&connections[ticks % paced], interval);
    if (now_s - last > STALL_S) {
      errno = 0;
      fail("no answer for 10 s");
    }
  }
  ended = now_s;
  printf("{\"count\": %ld, \"failed\": %ld, \"error\": %ld, \"bytes\": %.0f, ", count, failed, last_error, bytes_total);
  printf("\"seconds\": %.4f, \"client_cpu_s\": %.3f", (is_fan ? end : ended) - measured_from, cpu_s() - cpu);
  if (is_fan)
    printf(", \"sent\": %ld", sent_count);
  if (count)
    printf(", \"mean_ms\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"p99.9_ms\": %.4f, \"max_ms\": %.4f",
           latency_sum / count * 1e3, percentile(.5, count), percentile(.99, count), percentile(.999, count),
           latency_max * 1e3);
  puts("}");
}

int main(int argc, char **argv) {
  is_fan = argc > 1 && !strcmp(argv[1], "fan");
  if (argc != (is_fan ? 12 : 9) || (!is_fan && strcmp(argv[1], "ask"))) {
    fputs("see the head of load.c\n", stderr);
    return 2;
  }
  /* A wake-up is as exact as the kernel can make it. */
  prctl(PR_SET_TIMERSLACK, 1);
  signal(SIGPIPE, SIG_IGN);
  load_requests(argv[2]);
  int connection_count = atoi(argv[3]), in_flight = is_fan ? 1 : atoi(argv[4]);
  char **rest = argv + (is_fan ? 4 : 5);
  rate = atof(rest[0]);
  double warmup_s = atof(rest[1]), seconds = atof(rest[2]);
  error_at = atol(rest[3]);
  int total = connection_count + is_fan;
  if (is_fan) {
    end_at = atol(rest[4]), offset_at = atol(rest[5]);
    session_at = atol(rest[6]), id_at = atol(rest[7]);
    sent_max = (warmup_s + seconds + 2) * rate;
    sent_at = calloc(sent_max, sizeof *sent_at);
  }
  stride = is_fan ? request_count : connection_count;
  poller = epoll_create1(0);
  Connection *connections = calloc(total, sizeof *connections);
  for (int i = 0; i < total; i++) {
    Connection *c = &connections[i];
    c->first = c->next = is_fan ? 0 : i % request_count;
    const Request *target = &requests[is_fan && i ? 1 : c->first];
    if (is_fan && i) {
      c->own = *target;
      c->own.bytes = malloc(target->size);
      memcpy(c->own.bytes, target->bytes, target->size);
    }
    /* The producer goes by the clock, answered or not. */
    open_connection(c, target, is_fan && !i ? 1000 : in_flight);
  }
  run(connections, total, warmup_s, seconds);
  return failed ? 1 : 0;
}
