/** The host that verbs with real effects are called on: a bystander on it, a pod, and a way to begin anew. */

import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { cleanEnv } from '../support/run.ts';
import { place } from './target.ts';

/** The variable by which a process knows that it is on a host of its own. */
export const insideVariable = 'FUZZ_INSIDE';

/** Where the suite's plugins seem to be, for delegation within the process. */
export const pluginPath = '/run/fuzz-bin';
/** What stands for the suite there. */
export const program = `${pluginPath}/host-local`;

/** Sandbox of the pod that is connected. */
export const sandbox = '/run/netns/pod';

const bystander = 'bystander';
/** Directories of which only these names may change. */
const changeable: Readonly<Record<string, readonly string[]>> = {
  '/run': ['cni', 'netns', 'xtables.lock', 'flannel', 'containers'],
  '/var/lib/cni': ['networks', 'tuning', 'results', 'flannel', 'multus', 'genie'],
  '/etc/cni': ['net.d'],
};

/** What a host has in addition to what all have. */
export interface Beginning {
  /** Lines of "ip -batch". */
  readonly links?: readonly string[];
  /** A script of nft(8). */
  readonly rules?: string;
  /** Files by their paths. */
  readonly files?: Readonly<Record<string, string>>;
}

function run(...argv: [string, ...string[]]): string {
  const [file, ...args] = argv;
  return execFileSync(file, args, { encoding: 'utf8', env: cleanEnv, stdio: ['ignore', 'pipe', 'pipe'] });
}

function feed(file: string, args: readonly string[], input: string): string {
  return execFileSync(file, args, {
    encoding: 'utf8',
    env: cleanEnv,
    input,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

let isPrepared = false;

/**
 * Makes the host as every input finds it: beside the bystander, there is a pod with an interface "eth0" that
 * has an address.
 * @throws Error when this process is not on a host of its own.
 */
export function beginAnew({ links = [], rules = '', files = {} }: Beginning = {}): void {
  if (!process.env[insideVariable])
    throw new Error('This target needs a host of its own. Run it with "npm run fuzz"');
  if (!isPrepared) prepare();
  isPrepared = true;
  endServers();
  for (const [directory, names] of Object.entries(changeable))
    for (const name of names)
      if (name !== 'netns') rmSync(`${directory}/${name}`, { recursive: true, force: true });
  const own = ['lo', 'keep0'];
  const foreign = readdirSync('/sys/class/net').filter((name) => !own.includes(name));
  const pods = readdirSync('/run/netns').filter((name) => name !== bystander);
  // Deleting one end of a veth pair deletes the other, so that some of these are gone by their turn.
  const removals = [
    ...foreign.filter((name) => /^[\w.-]+$/.test(name)).map((name) => `link delete dev ${name}`),
    ...pods.map((name) => `netns delete ${name}`),
  ];
  spawnSync('ip', ['-force', '-batch', '-'], { env: cleanEnv, input: `${removals.join('\n')}\n` });
  // Names that were chosen by someone in a sandbox may have a meaning in a batch.
  for (const name of readdirSync('/sys/class/net').filter((one) => !own.includes(one)))
    spawnSync('ip', ['link', 'delete', 'dev', name], { env: cleanEnv });
  run('ip', 'netns', 'add', 'pod');
  run('ip', 'link', 'add', 'uplink', 'up', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', 'pod');
  const inside = ['link set lo up', 'link set eth0 up', 'addr add 10.1.0.2/24 dev eth0'];
  feed('ip', ['-n', 'pod', '-batch', '-'], `${inside.join('\n')}\n`);
  feed('nft', ['-f', '-'], `flush ruleset\n${bystanderRules}${rules}\n`);
  if (links.length > 0) feed('ip', ['-batch', '-'], `${links.join('\n')}\n`);
  for (const [path, text] of Object.entries(files)) place(path, text);
}

/** Ends what plugins have started. There are no processes of others here. */
function endServers(): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
    try {
      if (readFileSync(`/proc/${pid}/comm`, 'latin1') === 'dnsmasq\n') process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has exited meanwhile.
    }
}

/** Whether the kernel has a kind of interface. @param options of "ip link" that it requires for that kind. */
export function hasLinkKind(kind: string, options: readonly string[]): boolean {
  const { stderr } = spawnSync('unshare', ['--net', 'ip', 'link', 'add', 't0', 'type', kind, ...options], {
    encoding: 'utf8',
    env: cleanEnv,
  });
  return !stderr.includes('Unknown device type');
}

/** Rules that the plugins know nothing of. */
const bystanderRules = `table inet bystander {
  chain input { type filter hook input priority 0; tcp dport 4711 counter drop; }
}
table ip filter {
  chain FORWARD { type filter hook forward priority 0; jump BYSTANDER; }
  chain BYSTANDER { ip saddr 192.0.2.2 accept; }
}
table ip nat {
  chain POSTROUTING { type nat hook postrouting priority 100; jump BYSTANDER; }
  chain BYSTANDER { ip saddr 192.0.2.2 return; }
}
`;

function prepare(): void {
  mkdirSync(pluginPath);
  for (const name of ['bridge', 'host-local', 'ptp', 'static']) {
    place(`${pluginPath}/${name}`, 'the suite');
    chmodSync(`${pluginPath}/${name}`, 0o755);
  }
  for (const directory of Object.keys(changeable)) place(`${directory}/canary`, 'alive');
  const pod = ['-n', bystander] as const;
  run('ip', 'netns', 'add', bystander);
  run('ip', 'link', 'add', 'keep0', 'up', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', bystander);
  run('ip', ...pod, 'link', 'set', 'eth0', 'up');
  run('ip', ...pod, 'link', 'set', 'lo', 'up');
  run('ip', ...pod, 'addr', 'add', '192.0.2.2/24', 'dev', 'eth0');
  run('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'keep0');
  run('ip', 'route', 'add', '198.51.100.0/24', 'dev', 'keep0');
  run('ip', 'rule', 'add', 'from', '192.0.2.2', 'lookup', '100', 'priority', '500');
}

/** Everything on the host that is none of any call's business, as text. */
export function pictureOfBystander(): string {
  const directories = Object.entries(changeable);
  const canaries = directories.map(([directory]) => readFileSync(`${directory}/canary`, 'utf8'));
  const names = directories.flatMap(([directory, changing]) =>
    readdirSync(directory).filter((name) => !changing.includes(name)),
  );
  const rules = run('nft', '--stateless', 'list', 'ruleset').split('\n');
  return JSON.stringify([
    ...[canaries, names, readFileSync('/proc/sys/net/core/somaxconn', 'utf8')],
    feed('ip', ['-4', '-batch', '-'], 'addr show keep0\nrule show priority 500\nroute show dev keep0\n'),
    feed('ip', ['-n', bystander, '-4', '-batch', '-'], 'addr\nrule\nroute show table all\n'),
    rules.filter((line) => /4711|jump BYSTANDER|192\.0\.2\.2/.test(line)),
  ]);
}

/** All of the host and the pod that plugins change, as text, without what the kernel does by itself. */
export function pictureOfHost(): string {
  const files = ['/run/cni', '/var/lib/cni', '/run/containers'].flatMap((directory) =>
    existsSync(directory) ? readdirSync(directory, { recursive: true, encoding: 'utf8' }) : [],
  );
  const rules = run('nft', '--stateless', 'list', 'ruleset');
  const ofPod = ['link', 'rule', 'route show table all'].map((what) =>
    run('ip', '-n', 'pod', ...what.split(' ')),
  );
  const limits = run('tc', 'qdisc');
  return JSON.stringify([files, rules, run('ip', 'addr'), limits, ofPod, pictureOfPod()]);
}

/** What the pod's interfaces are like, as text, without what the kernel does to them by itself. */
export function pictureOfPod(): string {
  const links = JSON.parse(run('ip', '-n', 'pod', '-4', '-d', '-j', 'addr')) as Record<string, unknown>[];
  return JSON.stringify(
    links.map(({ ifname, address, mtu, txqlen, promiscuity, addr_info }) => [
      ...[ifname, address, mtu, txqlen, promiscuity],
      (addr_info as { local: string; prefixlen: number }[]).map(({ local, prefixlen }) => [local, prefixlen]),
    ]),
  );
}
