/** Where the command finds networks, plugins and the results of ADD, and how plugins are run. */

import { dirname } from 'node:path';
import { readEnvironment } from '../launcher/launch.ts';
import { runtimeNetworks } from '../lib/networks/directories.ts';
import { describeError } from './errors.ts';
import { defaultCacheDir } from './libcni/cache.ts';
import type { Environment, PluginRun } from './libcni/chain.ts';
import { note, paintError, warn } from './terminal.ts';

/** The environment variables that `--help` explains, and their defaults. */
export const environmentHelp = `Environment, as with cnitool:
  NETCONFPATH  directory of the network configurations (/etc/cni/net.d)
  CNI_PATH     directories of the plugins, separated by ":" (/opt/cni/bin; /usr/lib/cni
               for the Debian package's own command)
  CNI_IFNAME   name of the interface in the container (eth0)
  CNI_ARGS     arguments for the plugins, such as "IgnoreUnknown=1;IP=10.1.0.9"
  CNI_CACHE_DIR
               directory above "results", where runtimes record attachments (/var/lib/cni;
               with dockershim, cri-dockerd and KubeEdge /var/lib/cni/cache)
  CAP_ARGS     capability arguments as JSON, such as
               {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}

The container ID is derived from the path of the namespace, as cnitool does. Results are kept in
/var/lib/cni/results, where cnitool and most runtimes built on libcni keep theirs.`;

/** Directory of the network configurations. */
export function configDir(): string {
  return process.env.NETCONFPATH || runtimeNetworks;
}

/** Directories of the plugins. */
export function pluginPath(): string[] {
  return (process.env.CNI_PATH || usualPath()).split(':').filter((directory) => directory !== '');
}

/** Where runtimes look for plugins unless told otherwise: Debian's look where its packages put them. */
function usualPath(): string {
  const debian = '/usr/lib/cni';
  // What the kernel started is the loader, in the private directory beside the plugins.
  return dirname(dirname(process.execPath)) === debian ? debian : '/opt/cni/bin';
}

/** Directory above the result cache. Some runtimes do not keep it in libcni's default place. */
export function cacheDir(): string {
  return process.env.CNI_CACHE_DIR || defaultCacheDir;
}

/** The environment that the command was started with, for the programs that it runs. */
export function callerEnvironment(): NodeJS.ProcessEnv {
  return readEnvironment(process.env);
}

/** How plugins are run. @param trace writes each run to standard error. */
export function environment(trace = false): Environment {
  return {
    path: pluginPath(),
    cacheDir: cacheDir(),
    variables: callerEnvironment(),
    onWarning: warn,
    ...(trace && { onRun: writeTrace }),
  };
}

function writeTrace({ command, type, file, stdin, milliseconds, outcome }: PluginRun): void {
  const failed = 'error' in outcome;
  const mark = failed ? paintError('red', 'failed') : paintError('green', 'ok');
  note(`${paintError('bold', `${command} ${type}`)}  ${mark}  ${milliseconds.toFixed(1)} ms  ${file}`);
  note(indented('stdin ', stdin));
  if (failed) note(`  error  ${describeError(outcome.error).replaceAll('\n', '\n         ')}`);
  else if (outcome.output.trim() !== '') note(indented('result', outcome.output));
}

function indented(label: string, json: string): string {
  let text = json;
  try {
    text = JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    // Shown as it is.
  }
  return `  ${paintError('dim', label)} ${text.replaceAll('\n', '\n         ')}`;
}

/** The name of standard input. It must not be opened as a file, which fails if it is a socket. */
export const standardInput = '/dev/stdin';
