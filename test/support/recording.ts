/** Terminal sessions in documents: their commands are run, and what they print is written below them. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeHost, type Teardown } from './host.ts';
import { cleanEnv } from './run.ts';

const root = join(import.meta.dirname, '../..');

/** How long a command may take, in milliseconds. */
const patienceMs = 120_000;

/** Terminals by the prompts of their shells. */
export type Terminals = Readonly<Record<string, Terminal>>;

/** A shell that runs one command after another. */
class Terminal {
  private readonly shell: ChildProcessWithoutNullStreams;

  /** @param argv starts the shell; its processes end with it. */
  constructor(t: Teardown, argv: readonly string[]) {
    const env = { ...cleanEnv, HOME: '/root', COLUMNS: '100' };
    this.shell = spawn(argv[0]!, argv.slice(1), { env });
    t.teardown(async () => {
      const ended = once(this.shell, 'close');
      this.shell.kill('SIGKILL');
      await ended;
    });
  }

  /**
   * Runs a command to its end, or if it ends in "&", until it listens on a TCP port.
   * @returns what it printed.
   * @throws Error when it does not end.
   */
  async run(command: string): Promise<string> {
    const mark = `end of command ${Math.random()}`;
    const wait =
      'while kill -0 $! && ! grep -qs " 0A " /proc/$!/net/tcp /proc/$!/net/tcp6; do sleep 0.1; done';
    const lines = [command, ...(command.endsWith('&') ? [wait] : [])];
    let output = '';
    return await new Promise((resolve, reject) => {
      const timeout = setTimeout(
        () => finish(new Error(`"${command}" does not end:\n${output}`)),
        patienceMs,
      );
      const onExit = () => finish(new Error(`The shell ended with "${command}":\n${output}`));
      const onData = (data: Buffer) => {
        output += data;
        if (output.endsWith(`${mark}\n`)) finish();
      };
      const finish = (error?: Error) => {
        clearTimeout(timeout);
        this.shell.stdout.off('data', onData);
        this.shell.off('exit', onExit);
        if (error) reject(error);
        else resolve(output.slice(0, -mark.length - 1));
      };
      this.shell.on('exit', onExit);
      this.shell.stdout.on('data', onData);
      // The next command may ask for the exit code of this one.
      this.shell.stdin.write(`${lines.join('\n')}\n{ status=$?; echo '${mark}'; (exit $status); }\n`);
    });
  }
}

/** A shell in a namespace, with a host name and processes of its own. */
function openTerminal(t: Teardown, enter: readonly string[], hostname: string): Terminal {
  const namespaces = ['unshare', '--uts', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  return new Terminal(t, [
    ...enter,
    ...namespaces,
    'sh',
    '-c',
    `hostname ${hostname}; cd "$0"; exec bash 2>&1`,
    root,
  ]);
}

/**
 * Makes a bare host, "node-1" at 192.0.2.10, and a machine on its network, "laptop" at 192.0.2.1.
 * @returns a terminal on each.
 */
export async function openTerminals(t: Teardown): Promise<Terminals> {
  const host = await makeHost(t, { mayHaveAgent: false });
  const laptop = await host.addPod();
  // The bare host has nothing of the machine's other plugins and runtimes, nor its DNS servers.
  const script = `set -e
    rmdir /etc/cni/net.d
    mount -t tmpfs tmpfs /opt
    for directory in /etc/containerd /etc/crio /etc/containers /usr/lib/cni /usr/libexec/cni; do
      test ! -d $directory || mount -t tmpfs tmpfs $directory
    done
    touch /run/no-resolver
    test ! -e /etc/resolv.conf || mount --bind /run/no-resolver /etc/resolv.conf
    ip link add eth0 type veth peer name eth0 netns ${laptop.name}
    ip address add 192.0.2.10/24 dev eth0
    ip link set eth0 up
    ip route add default via 192.0.2.1
    ip -n ${laptop.name} address add 192.0.2.1/24 dev eth0
    ip -n ${laptop.name} link set eth0 up
    ip -n ${laptop.name} link set lo up`;
  await host.run(['sh', '-c', script]);
  return {
    'node-1#': openTerminal(t, host.enter, 'node-1'),
    laptop$: openTerminal(t, laptop.enter, 'laptop'),
  };
}

/** Installs the plugins on a bare host with the commands of the README. */
export async function installAsReadmeSays(terminals: Terminals): Promise<void> {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const block = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].find(([, text]) =>
    text!.includes('cni install'),
  );
  await terminals['node-1#']!.run(block![1]!.trimEnd());
}

/**
 * Runs the commands in the "console" blocks of a document, in order.
 * @param document Markdown. In these blocks, a prompt begins a command, "> " the next line of one, and all
 *   else is output.
 * @returns the document with what the commands print now.
 */
export async function record(document: string, terminals: Terminals): Promise<string> {
  const written: string[] = [];
  let inSession = false;
  let command: string | undefined;
  let terminal: Terminal | undefined;
  const finishCommand = async () => {
    if (command === undefined) return;
    const output = (await terminal!.run(command)).trimEnd();
    if (output !== '') written.push(output);
    command = undefined;
  };
  for (const line of document.split('\n')) {
    const prompt = Object.keys(terminals).find((name) => line.startsWith(`${name} `));
    if (line.startsWith('```')) {
      await finishCommand();
      inSession = line === '```console';
      written.push(line);
    } else if (!inSession) written.push(line);
    else if (prompt !== undefined) {
      await finishCommand();
      terminal = terminals[prompt];
      command = line.slice(prompt.length + 1);
      written.push(line);
    } else if (command?.endsWith('\\') && line.startsWith('> ')) {
      command += `\n${line.slice(2)}`;
      written.push(line);
    }
  }
  return written.join('\n');
}

/**
 * A recorded document without what differs between recordings: ages, round-trip times, random names; and
 * without the lists of all plugins, so that a new plugin outdates no document.
 */
export function comparable(document: string): string {
  return document
    .replaceAll(/\b\d+\.\d+ ms\b/g, 'TIME')
    .replaceAll(/\b\d{4}-\d\d-\d\d \d\d:\d\d UTC\b/g, 'DATE')
    .replaceAll(/\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b/g, 'MAC')
    .replaceAll(/\bveth[0-9a-f]{8}\b/g, 'VETH')
    .replaceAll(/\b\d+ of \d+ entries\b/g, 'ENTRIES')
    .replaceAll(/\b\d+ (executables (?:copied|removed) \w+ "[^"]*").*/g, 'N $1')
    .replaceAll(/ \d+[sm](?= )/g, ' AGE')
    .replaceAll(/ {2,}/g, '  ');
}
