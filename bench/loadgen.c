/* loadgen.c - bounded, verifying load generator for authentication daemons.
 *
 * One thread, epoll, N connections, at most D requests in flight on each.
 * Every reply is compared with the expected verdict; a share of requests
 * carries a wrong password and must be refused.  Prints one JSON line.
 *
 *   cc -O2 -o loadgen loadgen.c -lcrypto
 *   loadgen -P ejabberd -u /run/x.sock -c 8 -d 1 -n 100000 -w 10
 *
 * -P protocol:
 *   ejabberd   u16be length + "auth:user:host:pass"; reply 00 02 00 01|00
 *   prosody    "auth:user:host:pass\n"; reply "1\n" | "0\n"
 *   dovecot    Dovecot auth client protocol, PLAIN with initial response
 *   scram      Dovecot auth client protocol, full SCRAM-SHA-256 exchange
 *              (both signatures checked; client keys cached per user+salt, as
 *              real clients may, so the client's PBKDF2 is not what we time)
 *   saslauthd  one connection per request; four u16-prefixed strings
 *              (keep -c below the server backlog: connect() blocks, and saslauthd
 *              waits for the client to close, so -c 64 against it dead-locks)
 *   http       keep-alive "GET /auth?...": 2xx = yes, 401/403 = no
 *   ws         WebSocket echo (one text frame of -S bytes per request)
 * -u PATH unix socket | -t PORT loopback TCP | -x CMD spawn CMD once per
 *   connection and talk over two pipes (how ejabberd and Prosody do it)
 * -o isuser  ask for existence instead (ejabberd, prosody); "wrong" is then a
 *   user that is not there
 * -c connections  -d depth  -n requests  -w percent wrong  -W warm-up requests
 * -U number of users (uNNNNN / secret-NNNNN)  -f FILE of "user:password"
 * -h virtual host  -T overall time limit in s (default 60)  -L label
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum proto { EJABBERD, PROSODY, DOVECOT, SCRAM, SASLAUTHD, HTTP, WS };
static const char *names[] = {"ejabberd", "prosody", "dovecot", "scram", "saslauthd", "http", "ws"};

static enum proto proto = EJABBERD;
static const char *unixpath, *spawncmd, *host = "example.org", *label = "";
static int isuser, tcpport, nconn = 1, depth = 1, wrongpct = 0, nusers = 1000, wsbytes = 32, tlimit = 60;
static long total = 10000, warm = -1, issued, done_, bad, yes_, no_, want_yes, want_no, errs;
static uint64_t *lat;
static int ep;

struct cred { char *user, *pass; /* SCRAM cache: */ char *salt; int iter; uint8_t ck[32], sk[32], stored[32]; };
static struct cred *creds;

struct req { uint64_t t0; long seq; int expect, user, active, step; char nonce[24]; char *authmsg; };
struct conn {
  int rfd, wfd, ready, inflight; pid_t pid;
  unsigned head, tail;              /* FIFO ring for ordered protocols */
  struct req *r; unsigned *gen;     /* depth slots */
  char *ob; size_t olen, ooff, ocap; int wantout;
  char *ib; size_t ilen, icap;
};
static struct conn *conns;

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec; }
static void die(const char *m) { fprintf(stderr, "loadgen: %s: %s\n", m, strerror(errno)); exit(2); }
static uint32_t rs = 2463534242u;
static uint32_t rnd(void) { rs ^= rs << 13; rs ^= rs >> 17; rs ^= rs << 5; return rs; }

static void put(struct conn *c, const void *p, size_t n) {
  if (c->olen + n > c->ocap) { c->ocap = (c->olen + n) * 2 + 4096; c->ob = realloc(c->ob, c->ocap); }
  memcpy(c->ob + c->olen, p, n); c->olen += n;
}
static void puts_(struct conn *c, const char *s) { put(c, s, strlen(s)); }
static int b64(char *out, const void *in, int n) { return EVP_EncodeBlock((unsigned char *)out, in, n); }
static int unb64(uint8_t *out, const char *in, int n) {
  int k = EVP_DecodeBlock(out, (const unsigned char *)in, n);
  if (k < 0) return -1;
  while (n > 0 && in[n - 1] == '=') { k--; n--; }
  return k;
}
static void hmac256(const uint8_t *k, int kl, const void *d, size_t n, uint8_t *out) { unsigned l; HMAC(EVP_sha256(), k, kl, d, n, out, &l); }

static void flush_(struct conn *c) {
  while (c->ooff < c->olen) {
    ssize_t k = write(c->wfd, c->ob + c->ooff, c->olen - c->ooff);
    if (k < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        if (!c->wantout) { struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c}; epoll_ctl(ep, EPOLL_CTL_MOD, c->rfd, &e); c->wantout = 1; }
        return;
      }
      die("write");
    }
    c->ooff += k;
  }
  c->ooff = c->olen = 0;
  if (c->wantout) { struct epoll_event e = {.events = EPOLLIN, .data.ptr = c}; epoll_ctl(ep, EPOLL_CTL_MOD, c->rfd, &e); c->wantout = 0; }
}

static void open_conn(struct conn *c) {
  c->ilen = c->olen = c->ooff = 0; c->wantout = 0;
  if (spawncmd) {
    int a[2], b[2];
    if (pipe2(a, O_CLOEXEC) || pipe2(b, O_CLOEXEC)) die("pipe");
    c->pid = fork();
    if (c->pid == 0) { dup2(a[0], 0); dup2(b[1], 1); execl("/bin/sh", "sh", "-c", spawncmd, (char *)0); _exit(127); }
    close(a[0]); close(b[1]); c->wfd = a[1]; c->rfd = b[0];
  } else if (unixpath) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strncpy(sa.sun_path, unixpath, sizeof sa.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), tries = 0;
    while (connect(fd, (void *)&sa, sizeof sa)) { if (errno != EAGAIN || ++tries > 2000) die("connect"); usleep(500); }
    c->rfd = c->wfd = fd;
  } else {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(tcpport), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (connect(fd, (void *)&sa, sizeof sa)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->rfd = c->wfd = fd;
  }
  fcntl(c->rfd, F_SETFL, O_NONBLOCK);
  if (c->wfd == c->rfd) fcntl(c->wfd, F_SETFL, O_NONBLOCK);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(ep, EPOLL_CTL_ADD, c->rfd, &e)) die("epoll_ctl");
  c->ready = !(proto == DOVECOT || proto == SCRAM || proto == WS);
  if (proto == DOVECOT || proto == SCRAM) {
    char b[64]; snprintf(b, sizeof b, "VERSION\t1\t2\nCPID\t%d\n", getpid() * 100 + (int)(c - conns)); puts_(c, b); flush_(c);
  }
  if (proto == WS) {
    puts_(c, "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); flush_(c);
  }
}

/* Write "auth:..." or "isuser:..."; returns its length. */
static int question(char *b, size_t n, const struct req *r, const char *u, const char *pw) {
  if (isuser) return snprintf(b, n, "isuser:%s%s:%s", r->expect ? "" : "no-", u, host);
  return snprintf(b, n, "auth:%s:%s:%s", u, host, pw);
}

/* Queue one request on a connection that has a free slot. */
static void issue(struct conn *c) {
  unsigned s;
  if (proto == DOVECOT || proto == SCRAM) { for (s = 0; c->r[s].active; s++) ; c->gen[s]++; }
  else s = c->tail++ % depth;
  struct req *r = &c->r[s];
  r->seq = issued++; r->user = rnd() % nusers; r->expect = (int)(rnd() % 100) >= wrongpct; r->active = 1; r->step = 0;
  c->inflight++;
  const char *u = creds[r->user].user; char pw[512], b[2048]; int n;
  snprintf(pw, sizeof pw, "%s", creds[r->user].pass);
  if (!r->expect) { char *m = pw + strlen(pw) / 2; *m = *m == 'A' ? 'B' : 'A'; }
  switch (proto) {
  case EJABBERD:
    n = question(b + 2, sizeof b - 3, r, u, pw); b[0] = n >> 8; b[1] = n; put(c, b, n + 2); break;
  case PROSODY:
    n = question(b, sizeof b - 1, r, u, pw); b[n++] = '\n'; put(c, b, n); break;
  case DOVECOT: {
    char raw[1024], e[1600]; n = snprintf(raw, sizeof raw, "%c%s%c%s", 0, u, 0, pw); b64(e, raw, n);
    n = snprintf(b, sizeof b, "AUTH\t%u\tPLAIN\tservice=xmpp\tsecured\tno-penalty\tresp=%s\n", c->gen[s] * depth + s, e); put(c, b, n); break; }
  case SCRAM: {
    char raw[512], e[800]; uint32_t x[3] = {rnd(), rnd(), (uint32_t)r->seq}; b64(r->nonce, x, 12);
    n = snprintf(raw, sizeof raw, "n,,n=%s,r=%s", u, r->nonce); b64(e, raw, n);
    n = snprintf(b, sizeof b, "AUTH\t%u\tSCRAM-SHA-256\tservice=xmpp\tsecured\tno-penalty\tfinal-resp-ok\tresp=%s\n", c->gen[s] * depth + s, e); put(c, b, n); break; }
  case SASLAUTHD: {
    const char *f[4] = {u, pw, "xmpp", host}; n = 0;
    for (int i = 0; i < 4; i++) { int l = strlen(f[i]); b[n++] = l >> 8; b[n++] = l; memcpy(b + n, f[i], l); n += l; }
    put(c, b, n); break; }
  case HTTP:
    n = snprintf(b, sizeof b, "GET /auth?user=%s&server=%s&pass=%s HTTP/1.1\r\nHost: localhost\r\n\r\n", u, host, pw); put(c, b, n); break;
  case WS: {
    n = 0; b[n++] = (char)0x81; b[n++] = 0x80 | wsbytes; memset(b + n, 0, 4); n += 4; memset(b + n, 'x', wsbytes); n += wsbytes; put(c, b, n); break; }
  }
  r->t0 = now();
}

static void finish(struct conn *c, struct req *r, int got) {
  if (r->seq >= warm) { lat[done_ - 0 < total ? r->seq : 0] = now() - r->t0; }
  if (got) yes_++; else no_++;
  if (r->expect) want_yes++; else want_no++;
  if (got != r->expect) bad++;
  r->active = 0; c->inflight--; done_++;
}

/* SCRAM: answer the server-first message. */
static int scram_first(struct conn *c, unsigned id, struct req *r, const char *b, int bl) {
  uint8_t sf[1024]; if (bl > 1200) return -1; int n = unb64(sf, b, bl); if (n < 0) return -1; sf[n] = 0;
  char *sn = strstr((char *)sf, "r="), *ss = strstr((char *)sf, ",s="), *si = strstr((char *)sf, ",i=");
  if (!sn || !ss || !si || strncmp(sn + 2, r->nonce, strlen(r->nonce))) return -1;
  char salt[256]; snprintf(salt, sizeof salt, "%.*s", (int)(si - ss - 3), ss + 3); int it = atoi(si + 3);
  struct cred *u = &creds[r->user];
  if (!u->salt || strcmp(u->salt, salt) || u->iter != it) {
    uint8_t rs_[256], sp[32]; int k = unb64(rs_, salt, strlen(salt));
    PKCS5_PBKDF2_HMAC(u->pass, strlen(u->pass), rs_, k, it, EVP_sha256(), 32, sp);
    hmac256(sp, 32, "Client Key", 10, u->ck); hmac256(sp, 32, "Server Key", 10, u->sk); SHA256(u->ck, 32, u->stored);
    free(u->salt); u->salt = strdup(salt); u->iter = it;
  }
  char fin[512], am[2048]; int fl = snprintf(fin, sizeof fin, "c=biws,r=%.*s", (int)(ss - sn - 2), sn + 2);
  int al = snprintf(am, sizeof am, "n=%s,r=%s,%s,%s", u->user, r->nonce, sf, fin);
  uint8_t sig[32], proof[32]; hmac256(u->stored, 32, am, al, sig);
  for (int i = 0; i < 32; i++) proof[i] = u->ck[i] ^ sig[i];
  if (!r->expect) proof[5] ^= 1;
  free(r->authmsg); r->authmsg = strdup(am);
  memcpy(fin + fl, ",p=", 3); fl += 3; fl += b64(fin + fl, proof, 32);
  char e[1024], o[1200]; b64(e, fin, fl); int k = snprintf(o, sizeof o, "CONT\t%u\t%s\n", id, e); put(c, o, k); r->step = 1;
  return 0;
}
static int scram_final_ok(struct req *r, const char *b, int bl) {
  uint8_t v[512], sig[32]; char w[64] = "v="; if (bl > 600) return 0; int n = unb64(v, b, bl); if (n < 0) return 0; v[n] = 0;
  hmac256(creds[r->user].sk, 32, r->authmsg, strlen(r->authmsg), sig); b64(w + 2, sig, 32);
  return !strcmp((char *)v, w);
}

static int dovecot_line(struct conn *c, char *l, int n) {
  l[n] = 0;
  if (!c->ready) { if (!strcmp(l, "DONE")) c->ready = 1; return 0; }
  char cmd = l[0]; char *p = strchr(l, '\t'); if (!p) return -1;
  unsigned id = strtoul(p + 1, &p, 10), s = id % depth; struct req *r = &c->r[s];
  if (!r->active || c->gen[s] * depth + s != id) { errs++; return -1; }
  if (cmd == 'F') finish(c, r, 0);
  else if (cmd == 'O') {
    if (proto == SCRAM && r->step == 1) { char *q = strstr(p, "\tresp="); int ok = 0; if (q) { q += 6; ok = scram_final_ok(r, q, strcspn(q, "\t")); } if (!ok) errs++; }
    finish(c, r, 1);
  } else if (cmd == 'C' && proto == SCRAM) {
    if (r->step == 0) { if (scram_first(c, id, r, p + 1, strlen(p + 1))) { errs++; finish(c, r, 0); } }
    else { if (!scram_final_ok(r, p + 1, strlen(p + 1))) errs++; char o[64]; int k = snprintf(o, sizeof o, "CONT\t%u\t\n", id); put(c, o, k); r->step = 2; }
  } else return -1;
  return 0;
}

/* Consume complete replies from the input buffer; returns bytes used, <0 on a protocol error. */
static ssize_t parse(struct conn *c) {
  size_t o = 0;
  for (;;) {
    char *b = c->ib + o; size_t n = c->ilen - o; struct req *r = &c->r[c->head % depth];
    if (proto == EJABBERD) {
      if (n < 4) break;
      if (b[0] || b[1] != 2 || b[2] || (b[3] & ~1) || !c->inflight) return -1;
      c->head++; finish(c, r, b[3]); o += 4;
    } else if (proto == PROSODY) {
      if (n < 2) break;
      if ((b[0] != '0' && b[0] != '1') || b[1] != '\n' || !c->inflight) return -1;
      c->head++; finish(c, r, b[0] == '1'); o += 2;
    } else if (proto == DOVECOT || proto == SCRAM) {
      char *e = memchr(b, '\n', n); if (!e) break;
      if (dovecot_line(c, b, e - b)) return -1;
      o += e - b + 1;
    } else if (proto == SASLAUTHD) {
      if (n < 4) break;
      c->head++; finish(c, r, b[2] == 'O' && b[3] == 'K'); return c->ilen;
    } else if (proto == HTTP) {
      char *e = memmem(b, n, "\r\n\r\n", 4); if (!e) break;
      int code = atoi(b + 9); char sv = e[2]; e[2] = 0; char *cl = strcasestr(b, "content-length:"); long l = cl ? atol(cl + 15) : 0; e[2] = sv;
      if (n < (size_t)(e + 4 - b) + l) break;
      if (code / 100 != 2 && code != 401 && code != 403) { fprintf(stderr, "http %d\n", code); return -1; }
      c->head++; finish(c, r, code / 100 == 2); o += e + 4 - b + l;
    } else {
      if (!c->ready) { char *e = memmem(b, n, "\r\n\r\n", 4); if (!e) break; if (strncmp(b + 9, "101", 3)) return -1; c->ready = 1; o += e + 4 - b; continue; }
      if (n < 2) break;
      size_t l = b[1] & 127; if (n < 2 + l) break;
      c->head++; finish(c, r, (b[0] & 15) == 1 && (int)l == wsbytes); o += 2 + l;
    }
  }
  return o;
}

static int cmp(const void *a, const void *b) { uint64_t x = *(uint64_t *)a, y = *(uint64_t *)b; return x < y ? -1 : x > y; }

int main(int argc, char **argv) {
  int o; char *cf = 0;
  while ((o = getopt(argc, argv, "P:o:u:t:x:c:d:n:w:W:U:f:h:S:T:L:")) != -1) switch (o) {
    case 'P': for (int i = 0; i < 7; i++) if (!strcmp(optarg, names[i])) proto = i; break;
    case 'o': isuser = !strcmp(optarg, "isuser"); break;
    case 'u': unixpath = optarg; break; case 't': tcpport = atoi(optarg); break; case 'x': spawncmd = optarg; break;
    case 'c': nconn = atoi(optarg); break; case 'd': depth = atoi(optarg); break; case 'n': total = atol(optarg); break;
    case 'w': wrongpct = atoi(optarg); break; case 'W': warm = atol(optarg); break; case 'U': nusers = atoi(optarg); break;
    case 'f': cf = optarg; break; case 'h': host = optarg; break; case 'S': wsbytes = atoi(optarg); break;
    case 'T': tlimit = atoi(optarg); break; case 'L': label = optarg; break; default: return 2; }
  signal(SIGPIPE, SIG_IGN);
  if (warm < 0) warm = total / 10;
  total += warm;
  if (proto == SASLAUTHD || proto == WS) depth = proto == WS ? depth : 1;
  if (cf) {
    FILE *f = fopen(cf, "r"); if (!f) die(cf); char b[1024]; int cap = 1024, k = 0; creds = calloc(cap, sizeof *creds);
    while (fgets(b, sizeof b, f)) { b[strcspn(b, "\n")] = 0; char *p = strchr(b, ':'); if (!p) continue; *p = 0;
      if (k == cap) { creds = realloc(creds, 2 * cap * sizeof *creds); memset(creds + cap, 0, cap * sizeof *creds); cap *= 2; }
      creds[k].user = strdup(b); creds[k++].pass = strdup(p + 1); }
    nusers = k; fclose(f);
  } else {
    creds = calloc(nusers, sizeof *creds);
    for (int i = 0; i < nusers; i++) { char b[64]; sprintf(b, "u%05d", i); creds[i].user = strdup(b); sprintf(b, "secret-%05d", i); creds[i].pass = strdup(b); }
  }
  lat = calloc(total + 1, sizeof *lat); conns = calloc(nconn, sizeof *conns); ep = epoll_create1(EPOLL_CLOEXEC);
  uint64_t tb = now(), tstart = 0, deadline = tb + (uint64_t)tlimit * 1000000000ull; struct rusage ru0 = {0};
  for (int i = 0; i < nconn; i++) { struct conn *c = &conns[i]; c->r = calloc(depth, sizeof *c->r); c->gen = calloc(depth, sizeof *c->gen); c->icap = 1 << 18; c->ib = malloc(c->icap + 1);
    open_conn(c); if (c->ready) { while (c->inflight < depth && issued < total) issue(c); flush_(c); } }
  double first_ms = 0; int timeout = 0, closed = 0;
  while (done_ < total) {
    struct epoll_event ev[256]; int n = epoll_wait(ep, ev, 256, 1000);
    if (now() > deadline) { timeout = 1; break; }
    for (int i = 0; i < n; i++) {
      struct conn *c = ev[i].data.ptr;
      if (ev[i].events & EPOLLOUT) flush_(c);
      if (!(ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
      ssize_t k = read(c->rfd, c->ib + c->ilen, c->icap - c->ilen);
      if (k < 0) { if (errno == EAGAIN || errno == EINTR) continue; k = 0; }
      if (k == 0) { errs++; closed++; epoll_ctl(ep, EPOLL_CTL_DEL, c->rfd, 0); close(c->rfd); c->ready = 0; if (closed == nconn) goto out; continue; }
      c->ilen += k; long d0 = done_;
      ssize_t u = parse(c);
      if (u < 0) { fprintf(stderr, "loadgen: protocol error: %.*s\n", (int)(c->ilen > 80 ? 80 : c->ilen), c->ib); errs++; goto out; }
      memmove(c->ib, c->ib + u, c->ilen - u); c->ilen -= u;
      if (!d0 && done_) first_ms = (now() - tb) / 1e6;
      if (!tstart && done_ >= warm) { tstart = now(); getrusage(RUSAGE_SELF, &ru0); }
      if (proto == SASLAUTHD && done_ > d0) { close(c->rfd); if (issued < total) { /* latency includes the connect */ uint64_t t = now(); open_conn(c); issue(c); c->r[(c->tail - 1) % depth].t0 = t; } }
      else if (c->ready) while (c->inflight < depth && issued < total) issue(c);
      if (c->olen) flush_(c);
    }
  }
out:;
  uint64_t te = now(); struct rusage ru; getrusage(RUSAGE_SELF, &ru);
  long m = 0; for (long i = warm; i < total; i++) if (lat[i]) lat[m++] = lat[i];
  qsort(lat, m, sizeof *lat, cmp);
  double s = (te - (tstart ? tstart : tb)) / 1e9;
  double cpu = (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec - ru0.ru_utime.tv_sec - ru0.ru_stime.tv_sec) + (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec - ru0.ru_utime.tv_usec - ru0.ru_stime.tv_usec) / 1e6;
#define Q(p) (m ? lat[(long)((m - 1) * (p))] / 1e3 : 0)
  printf("{\"label\":\"%s\",\"proto\":\"%s\",\"conns\":%d,\"depth\":%d,\"n\":%ld,\"secs\":%.4f,\"rps\":%.0f,\"p50_us\":%.1f,\"p95_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,"
         "\"yes\":%ld,\"no\":%ld,\"want_yes\":%ld,\"want_no\":%ld,\"wrong_answers\":%ld,\"errors\":%ld,\"timeout\":%d,\"first_ms\":%.2f,\"gen_cpu\":%.2f}\n",
         label, names[proto], nconn, depth, m, s, (done_ - warm) > 0 ? (done_ - warm) / s : 0, Q(.5), Q(.95), Q(.99), Q(1.0), yes_, no_, want_yes, want_no, bad, errs, timeout, first_ms, cpu / s);
  for (int i = 0; i < nconn; i++) if (conns[i].pid) { close(conns[i].wfd); usleep(1000); kill(conns[i].pid, SIGTERM); waitpid(conns[i].pid, 0, 0); }
  return bad || errs || timeout ? 1 : 0;
}
