/** What `cni bugreport` puts into its archive. */

import { join } from 'node:path';
import { defaultSocket } from '../../agent/agent.ts';
import { parseJson } from '../../lib/cni/json.ts';
import { namesIn } from '../../lib/directory.ts';
import { readRegularFile, statusAt } from '../../lib/file.ts';
import { Netns } from '../../lib/kernel/netns.ts';
import type { Programs } from '../../lib/kernel/programs.ts';
import { askStatus } from '../agent-status.ts';
import type { Context } from '../doctor/context.ts';
import { printedRange } from '../printed.ts';
import { cacheDir, configDir } from '../settings.ts';
import { redactFile, redactText, redactValue } from './redact.ts';

/** A file of the archive. */
export interface Entry {
  readonly name: string;
  readonly data: string;
}

/** How long a program may run, in milliseconds. */
const timeoutMs = 20_000;
/** How much is kept of one file, or of one program's output, in bytes. */
const limit = 16 * 1024 * 1024;

/** Programs that show the host, by the file that their output goes into. */
const programsOfHost: Readonly<Record<string, readonly string[]>> = {
  'host/uname.txt': ['uname', '-a'],
  'host/addresses.txt': ['ip', '-d', 'address'],
  'host/routes.txt': ['ip', 'route', 'show', 'table', 'all'],
  'host/routes-ipv6.txt': ['ip', '-6', 'route', 'show', 'table', 'all'],
  'host/rules.txt': ['ip', 'rule'],
  'host/neighbours.txt': ['ip', 'neighbour'],
  'host/bridge-ports.txt': ['bridge', '-d', 'link'],
  'host/bridge-vlans.txt': ['bridge', 'vlan'],
  'host/traffic-control.txt': ['tc', '-s', 'qdisc'],
  'host/listeners.txt': ['ss', '-tulpn'],
  'host/sysctl.txt': ['sysctl', '-a', '-r', '^net\\.'],
  'host/conntrack.txt': ['conntrack', '-S'],
  'host/agent-service.txt': ['systemctl', 'status', 'cni-agent.service', 'cni-agent.socket', '--no-pager'],
  'firewall/iptables-nft.txt': ['iptables-nft-save', '-c'],
  'firewall/ip6tables-nft.txt': ['ip6tables-nft-save', '-c'],
  'firewall/iptables-legacy.txt': ['iptables-legacy-save', '-c'],
  'firewall/ip6tables-legacy.txt': ['ip6tables-legacy-save', '-c'],
  'firewall/iptables-version.txt': ['iptables', '--version'],
  'firewall/nftables.txt': ['nft', 'list', 'ruleset'],
};

const filesOfHost = ['/etc/os-release', '/proc/modules', '/proc/net/stat/nf_conntrack'];

/** Programs that show a pod. */
const programsOfPod = [
  ['ip', '-d', 'address'],
  ['ip', 'route', 'show', 'table', 'all'],
  ['ip', '-6', 'route', 'show', 'table', 'all'],
  ['ip', 'rule'],
];

/** Looks at the host. The entry of what cannot be obtained says why. Secrets are left out. */
export async function collect(context: Context): Promise<Entry[]> {
  const { programs } = context;
  const entries: Entry[] = [];
  for (const [name, argv] of Object.entries(programsOfHost))
    entries.push({ name, data: redactText(await outputOf(programs, argv)) });
  for (const file of filesOfHost)
    entries.push({ name: `host/${file.split('/').at(-1)}.txt`, data: contentOf(file) });
  entries.push({ name: 'attachments.json', data: await jsonOf(() => attachmentsOf(context)) });
  entries.push(...configurations(), recordsOf(), hostLocalFiles());
  for (const [i, { attachment, name }] of runningOf(context).entries()) {
    const title = `pods/${String(i + 1).padStart(3, '0')}-${name.replaceAll(/[^\w.-]/g, '_').slice(0, 60)}.txt`;
    const heading = `${attachment.network} ${attachment.containerId} ${attachment.ifname} ${attachment.netns}\n`;
    entries.push({ name: title, data: heading + redactText(await podOutput(programs, attachment.netns)) });
  }
  entries.push({ name: 'agent.json', data: await jsonOf(() => askStatus(defaultSocket)) });
  return entries;
}

function attachmentsOf({ inventory: { attachments, ranges, problems } }: Context): object {
  return { attachments, ranges: ranges.map(printedRange), problems };
}

/** None if they are unknown, which the entry of the attachments explains. */
function runningOf(context: Context): Context['running'] {
  try {
    return context.running;
  } catch {
    return [];
  }
}

async function outputOf(programs: Programs, [program = '', ...args]: readonly string[]): Promise<string> {
  try {
    const { status, stdout, stderr } = await programs.run(program, args, { timeoutMs });
    const ended = status === 0 ? '' : `\n${program} ended with ${status ?? 'a signal'}\n`;
    return cut(`${stdout}${stderr}`) + ended;
  } catch (error) {
    // On a broken host, programs may not even start.
    return `${(error as Error).message}\n`;
  }
}

async function podOutput(programs: Programs, path: string): Promise<string> {
  using netns = Netns.openIfPresent(path);
  if (!netns) return `"${path}" is not a network namespace\n`;
  const parts: string[] = [];
  // By the time it returns a promise, each program has been started in the namespace.
  for (const argv of programsOfPod)
    parts.push(`$ ${argv.join(' ')}\n${await netns.run(() => outputOf(programs, argv))}`);
  return parts.join('\n');
}

function configurations(): Entry[] {
  return (
    namesIn(configDir())
      // The entry of what is out of reach says why.
      .filter((name) => statusAt(join(configDir(), name))?.isFile() ?? true)
      .map((name, i) => ({
        // Names in a tar archive must be short.
        name: `networks/${String(i + 1).padStart(3, '0')}-${name.slice(-60)}`,
        data: contentOf(join(configDir(), name)),
      }))
  );
}

/** The result cache, with the configurations in it as JSON. */
function recordsOf(): Entry {
  const directory = join(cacheDir(), 'results');
  const records = Object.fromEntries(
    namesIn(directory).map((name) => [name, recordOf(join(directory, name))]),
  );
  return { name: 'results.json', data: json(records) };
}

function recordOf(file: string): unknown {
  try {
    const record = parseJson(readRegularFile(file, { limit })) as Record<string, unknown>;
    const { config } = record;
    const decoded = typeof config === 'string' ? parsed(Buffer.from(config, 'base64').toString()) : config;
    return { ...record, config: decoded };
  } catch (error) {
    return `It cannot be read: ${(error as Error).message}`;
  }
}

function parsed(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return text;
  }
}

/** host-local's reservations in their default place, by path. */
function hostLocalFiles(): Entry {
  const directory = '/var/lib/cni/networks';
  const files = namesIn(directory).flatMap((network) =>
    namesIn(join(directory, network)).map((name) => {
      const file = join(directory, network, name);
      return [file, contentOf(file)];
    }),
  );
  return { name: 'host-local.json', data: json(Object.fromEntries(files)) };
}

async function jsonOf(look: () => unknown): Promise<string> {
  try {
    return json(await look());
  } catch (error) {
    return json({ error: (error as Error).message });
  }
}

function contentOf(file: string): string {
  try {
    return redactFile(readRegularFile(file, { followLink: true, limit }));
  } catch (error) {
    return `"${file}" cannot be read: ${(error as Error).message}\n`;
  }
}

function cut(text: string): string {
  return text.length > limit
    ? `${text.slice(0, limit)}\nThe rest of ${text.length} characters is left out\n`
    : text;
}

/** JSON without secrets. */
export function json(value: unknown): string {
  return JSON.stringify(redactValue(JSON.parse(JSON.stringify(value))), null, 2);
}
