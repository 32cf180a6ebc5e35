/** `cni agent`: one long-running process that handles the plugins' calls, so that none has to start one. */

import { getPriority, setPriority } from 'node:os';
import { basename, dirname } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Agent, defaultSocket } from '../agent/agent.ts';
import { type MetricsAddress, parseMetricsAddress } from '../agent/metrics-address.ts';
import { startWatchdog } from '../agent/watchdog.ts';
import { defaultDataDir } from '../ipam/host-local/config.ts';
import { releaseEarlierBoots } from '../ipam/host-local/earlier-boots.ts';
import { privatePrefix, readLaunch } from '../launcher/launch.ts';
import type { Suite } from '../main.ts';
import packageJson from '../package.json' with { type: 'json' };
import { CommandError, describeError, ExitCode } from './errors.ts';
import { wholeNumber } from './numbers.ts';
import { callerEnvironment } from './settings.ts';
import { type Subcommand, subcommand } from './subcommand.ts';
import { print, warn } from './terminal.ts';

/** Nice value of an agent: pods wait for it, so it runs ahead of their processes. As in cni-agent.service. */
const agentPriority = -10;

/** The longest delay of a Node.js timer, 2³¹ - 1 milliseconds, in seconds: about 24 days. */
const longestIdleSeconds = 2_147_483;

interface AgentArguments {
  socket: string;
  concurrency: number;
  'idle-timeout': number;
  metrics: MetricsAddress | undefined;
  repair: boolean;
  traces: string | undefined;
  overlay: string | undefined;
}

/** The subcommand. @param suite the plugins that the agent serves. */
export function agent(suite: Suite): Subcommand<AgentArguments> {
  return {
    builder: (yargs) =>
      yargs
        .command(
          subcommand(
            'status',
            'Show what the agent of this host has done',
            async () => (await import('./agent-status.ts')).agentStatus,
          ),
        )
        .option('socket', {
          global: false,
          type: 'string',
          default: defaultSocket,
          requiresArg: true,
          describe: 'Unix socket to listen on; plugins look for the default one only',
        })
        .option('concurrency', {
          global: false,
          ...wholeNumber('concurrency', [1, 1_000_000]),
          default: 64,
          describe:
            'How many calls of the runtime may be under way at once; the rest wait in order, but each DEL first',
        })
        .option('idle-timeout', {
          global: false,
          ...wholeNumber('idle-timeout', [0, longestIdleSeconds]),
          default: 0,
          describe: 'End after this many seconds without a call; 0 for never',
        })
        .option('metrics', {
          global: false,
          type: 'string',
          coerce: (text: string | undefined) => (text === undefined ? undefined : parseMetricsAddress(text)),
          requiresArg: true,
          describe: 'Serve metrics for Prometheus here: 127.0.0.1:PORT, [::1]:PORT or unix:/PATH',
        })
        .option('repair', {
          global: false,
          type: 'boolean',
          default: false,
          describe: 'Run "cni repair" at start, and whenever firewalld has been reloaded or restarted',
        })
        .option('traces', {
          global: false,
          type: 'string',
          coerce: (text: string | undefined) => (text === undefined ? undefined : parseCollector(text)),
          requiresArg: true,
          describe:
            'Send spans to the OpenTelemetry collector at this URL; by default $OTEL_EXPORTER_OTLP_ENDPOINT',
        })
        .option('overlay', {
          global: false,
          type: 'string',
          requiresArg: true,
          describe: 'Do what flanneld does on a node, with the settings in this file',
        })
        .check(({ socket, metrics, repair, overlay, 'idle-timeout': idleTimeout }) => {
          if (metrics && 'path' in metrics && metrics.path === socket)
            throw usageError('--metrics and --socket name the same path. Give two');
          if (repair && idleTimeout > 0)
            throw usageError('--repair needs an agent that keeps running. Leave out --idle-timeout');
          if (overlay !== undefined && idleTimeout > 0)
            throw usageError('--overlay needs an agent that keeps running. Leave out --idle-timeout');
          return true;
        }, false)
        .example('$0 agent', 'Serve until SIGTERM')
        .example('$0 agent --repair', 'Also bring back what a reload of firewalld takes')
        .example('$0 agent --overlay /etc/cni/overlay.json', 'Also join the nodes to an overlay')
        .example('$0 agent --metrics 127.0.0.1:9464', 'Also serve http://127.0.0.1:9464/metrics'),
    handler: async ({
      socket,
      concurrency,
      'idle-timeout': idleTimeout,
      metrics,
      repair,
      traces,
      ...more
    }) => {
      // Calls must go on even if nobody reads the agent's output any longer.
      for (const stream of [process.stdout, process.stderr])
        stream.removeAllListeners('error').on('error', () => {});
      const build = basename(dirname(process.execPath)).slice(privatePrefix.length);
      const { program } = readLaunch(process.argv);
      const running = new Agent({
        socket,
        plugins: new Map([...suite.plugins, ...suite.ipam]),
        program,
        build,
        concurrency,
        idleTimeoutMs: idleTimeout * 1000,
      });
      const ended = new Promise<void>((resolve) => {
        running.onEnd = resolve;
      });
      const overlay = await openOverlay(more.overlay, running);
      raisePriority();
      // V8 would let the memory of new objects grow to 48 MiB under load, and keep it.
      setFlagsFromString('--semi-space-growth-factor=1');
      const metricsServer = metrics && (await startMetrics(metrics, running, build));
      using _ = startWatchdog(process.env, warn);
      let repairs: Disposable | undefined;
      let part: Promise<void> | undefined;
      const tracing = await startTracing(traces);
      if (tracing) running.observers.push(tracing);
      try {
        await running.listen();
        print(`Listening on "${socket}"`);
        for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => running.stop());
        await releaseEarlierBoots(defaultDataDir, warn);
        if (repair) repairs = (await import('./repair/by-itself.ts')).repairByItself(running, suite, program);
        part = overlay?.run();
        await ended;
      } finally {
        overlay?.stop();
        await part;
        repairs?.[Symbol.dispose]();
        metricsServer?.close();
        const isSent = await tracing?.close();
        await running.close();
        // The collector does not answer: do not wait for it any longer.
        if (isSent === false) process.exit();
      }
    },
  };
}

/**
 * Prepares to join the overlay, if that is wanted. Otherwise, none of the code for it is loaded.
 * @param file with the settings of the overlay.
 * @throws Error when the settings are wrong.
 */
async function openOverlay(file: string | undefined, { sharing, statusParts }: Agent) {
  if (file === undefined) return undefined;
  const { readOverlaySettings } = await import('../agent/overlay/settings.ts');
  const { Overlay } = await import('../agent/overlay/overlay.ts');
  const host = { sharing, environment: callerEnvironment(), print, warn, describe: describeError };
  const overlay = new Overlay(readOverlaySettings(file), host);
  statusParts.push(() => ({ overlay: overlay.status }));
  return overlay;
}

/** Serves an agent's metrics. Without --metrics, none of the code for it is loaded. */
async function startMetrics(address: MetricsAddress, running: Agent, build: string) {
  const { serveMetrics } = await import('../agent/metrics.ts');
  return await serveMetrics(address, running, { version: packageJson.version, build });
}

/**
 * Begins to send spans, if they are wanted. Otherwise, none of the code for it is loaded.
 * @param endpoint base URL of the collector; when undefined, OpenTelemetry's own variables may name one.
 */
async function startTracing(endpoint: string | undefined) {
  const { env } = process;
  const isWanted =
    endpoint ??
    (env.OTEL_SDK_DISABLED !== 'true' &&
      env.OTEL_TRACES_EXPORTER !== 'none' &&
      (env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || env.OTEL_EXPORTER_OTLP_ENDPOINT));
  if (!isWanted) return undefined;
  const { Tracing } = await import('../agent/tracing.ts');
  return new Tracing({ endpoint, version: packageJson.version, warn });
}

/** @throws CommandError when a text is not the URL of a collector. */
function parseCollector(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url && ['http:', 'https:'].includes(url.protocol) && !url.search && !url.hash) return text;
  throw usageError(`"${text}" is not the URL of a collector. Give one such as http://127.0.0.1:4318`);
}

/** Raises the priority of this process, if that is permitted. */
function raisePriority(): void {
  if (getPriority() <= agentPriority) return;
  try {
    setPriority(agentPriority);
  } catch {
    // This requires CAP_SYS_NICE, which a container may lack.
  }
}

function usageError(message: string): CommandError {
  return new CommandError(message, { exitCode: ExitCode.Usage });
}
