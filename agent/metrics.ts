/**
 * The agent's metrics, for Prometheus. `cni agent` loads this file, and with it prom-client, only when it is
 * told to serve them.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { basename } from 'node:path';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { errnoOf } from '../lib/file.ts';
import { listenOn } from '../lib/kernel/listen.ts';
import type { Agent, AgentObserver } from './agent.ts';
import type { MetricsAddress } from './metrics-address.ts';
import type { Statistics } from './statistics.ts';

/** Upper bounds of the histogram of durations, in seconds: from a trivial verb to a wait for DHCP. */
const buckets = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];

/** How many file descriptors may be open, which does not change. */
const maxFds = readMaxFds();

/** How long a client may be silent, in milliseconds. */
const patienceMs = 10_000;

/** How many clients there may be at once: anybody on the host can connect, and calls need descriptors. */
const maxConnections = 16;

/** A server of metrics. */
export interface MetricsServer {
  /** Stops serving. */
  close(): void;
}

/**
 * Serves GET /metrics.
 * @param address where, see {@link MetricsAddress}. A Unix socket is made like the agent's own.
 * @param build labels that describe the agent: its version, and the digest of its installed tree.
 * @throws Error that says why nothing can be served there.
 */
export async function serveMetrics(
  address: MetricsAddress,
  { statistics, observers }: Pick<Agent, 'statistics' | 'observers'>,
  build: { readonly version: string; readonly build: string },
): Promise<MetricsServer> {
  const { registry, observer } = makeRegistry(statistics, build);
  observers.push(observer);
  const server = createServer(
    { headersTimeout: patienceMs, requestTimeout: patienceMs },
    (request, response) => {
      answer(request, response, registry).catch((error: Error) => {
        process.stderr.write(`Metrics could not be served: ${error.message}\n`);
        response.destroy();
      });
    },
  );
  server.timeout = patienceMs;
  server.maxConnections = maxConnections;
  if ('path' in address) {
    const inUse = `Another process listens on "${address.path}" already. Stop it, or give another --metrics`;
    await listenOn(server, address.path, {}, inUse);
  } else {
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(explained(error, address))).listen(address, resolve);
    });
    server.removeAllListeners('error');
  }
  // From now on, a connection that cannot be accepted is no reason to end.
  server.on('error', (error) => process.stderr.write(`${error.message}\n`));
  return {
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function answer(request: IncomingMessage, response: ServerResponse, registry: Registry): Promise<void> {
  const [path] = (request.url ?? '').split('?', 1);
  if (path !== '/metrics') {
    response.writeHead(404, { 'Content-Type': 'text/plain' }).end('Metrics are at /metrics\n');
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { Allow: 'GET, HEAD', 'Content-Type': 'text/plain' }).end('Use GET\n');
  } else {
    const text = await registry.metrics();
    response.writeHead(200, { 'Content-Type': registry.contentType }).end(text);
  }
}

function explained(error: Error, { host, port }: { host: string; port: number }): Error {
  const reasons: Record<string, string> = {
    EADDRINUSE: `another process listens there already. Find it with "ss -ltnp sport = :${port}", or give another port`,
    EADDRNOTAVAIL: 'this host does not have that address. Give the other loopback address, or unix:/PATH',
    EAFNOSUPPORT: 'this kernel has no IPv6. Give 127.0.0.1:PORT or unix:/PATH',
    EACCES: 'permission is denied. Give a port above 1023, or run this as root',
  };
  const where = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const reason = reasons[errnoOf(error) ?? ''] ?? error.message;
  return new Error(`Cannot serve metrics on "${where}": ${reason}`, { cause: error });
}

/** Every metric. docs/agent.md lists them. */
function makeRegistry(
  statistics: Statistics,
  build: Readonly<Record<string, string>>,
): { registry: Registry; observer: AgentObserver } {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  const counter = (name: string, help: string, read: () => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });

  new Gauge({
    name: 'cni_agent_info',
    help: 'Version and build of the agent, always 1.',
    registers,
    labelNames: Object.keys(build),
  }).set({ ...build }, 1);
  gauge('cni_agent_uptime_seconds', 'For how long the agent has been there.', () => statistics.uptime);
  gauge('cni_agent_calls_running', 'Calls under way.', () => statistics.running);
  gauge('cni_agent_calls_queued', 'Calls that wait for others to end.', () => statistics.queued);
  counter(
    'cni_agent_calls_refused_total',
    "Calls left to the executable: not the agent's own, or not answered in time.",
    () => statistics.refused,
  );
  counter(
    'cni_agent_attachments_repaired_total',
    'How often an attachment was repaired.',
    () => statistics.repaired,
  );
  counter(
    'cni_agent_repair_failures_total',
    'How often an attachment was still broken after a repair.',
    () => statistics.unrepaired,
  );
  const calls = new Counter({
    name: 'cni_agent_calls_total',
    help: 'Calls that have ended, by plugin, verb and CNI error code; code 0 is success.',
    labelNames: ['plugin', 'verb', 'code'],
    registers,
  });
  const durations = new Histogram({
    name: 'cni_agent_call_duration_seconds',
    help: 'How long calls took, their wait for others to end included.',
    labelNames: ['plugin', 'verb'],
    buckets,
    registers,
  });
  const waits = new Histogram({
    name: 'cni_agent_call_wait_seconds',
    help: 'How long calls waited for others to end before they began.',
    buckets,
    registers,
  });
  const programs = new Histogram({
    name: 'cni_agent_program_duration_seconds',
    help: 'How long programs of the host ran, such as iptables-restore, and plugins of other executables.',
    labelNames: ['program'],
    buckets,
    registers,
  });
  // The label must have few values, and callers choose the names of delegates, so all of these share one.
  const ran = (program: string, milliseconds: number) => programs.observe({ program }, milliseconds / 1000);
  const observer: AgentObserver = {
    hasTurn: (waitedMs) => waits.observe(waitedMs / 1000),
    ranProgram: (_record, { file, milliseconds }) => ran(basename(file), milliseconds),
    end: ({ executable, milliseconds }) => {
      if (executable) ran('plugin', milliseconds);
    },
    finished({ plugin, verb, code, milliseconds }) {
      calls.inc({ plugin, verb, code });
      durations.observe({ plugin, verb }, milliseconds / 1000);
    },
  };

  // The process, under Prometheus's standard names. Not by prom-client's default metrics, whose monitor of
  // the event loop wakes an idle process 100 times a second.
  counter('process_cpu_seconds_total', 'Processor time of the agent, without its children.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss());
  gauge('process_open_fds', 'Open file descriptors.', openFds);
  gauge('process_max_fds', 'How many file descriptors may be open.', () => maxFds);
  gauge(
    'process_start_time_seconds',
    'When the process started, in seconds since 1970.',
    () => performance.timeOrigin / 1000,
  );
  return { registry, observer };
}

/** The number of open descriptors. When the directory cannot be opened, all of them are in use. */
function openFds(): number {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return maxFds;
  }
}

/** Source: proc(5), /proc/PID/limits. */
function readMaxFds(): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return Number(soft ?? Number.POSITIVE_INFINITY);
}
