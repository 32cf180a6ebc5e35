/** tuning: sets kernel settings of a sandbox, and properties of its interface. */

import type { Call } from '../lib/cni/call.ts';
import { mtuProblem, refuse } from '../lib/cni/config-checks.ts';
import { findOwnSandbox } from '../lib/cni/own-interface.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { requestedMac } from '../lib/cni/requested-mac.ts';
import type { Result } from '../lib/cni/result.ts';
import { boolean, type InferShape, integer, object, record, string } from '../lib/cni/schema.ts';
import { getLink, type Link, LinkFlag, requireLink, setLink } from '../lib/kernel/link.ts';
import type { Sandbox } from '../lib/kernel/sandbox.ts';
import { writeSysctl } from '../lib/kernel/sysctl.ts';
import { requireGone } from '../lib/netlink/error.ts';
import { isKernelError } from '../lib/netlink/libc.ts';
import type { Request } from '../lib/netlink/message.ts';
import { type Backup, Backups } from './tuning/backups.ts';
import { duplicateKey } from './tuning/duplicates.ts';
import { isOnlyWritten, readSysctls, refuseForbidden, sysctlPath } from './tuning/sysctl.ts';

const tunable = {
  sysctl: record(string(), { description: 'Kernel settings below "net."; IFNAME stands for the interface.' }),
  mac: string({ description: 'MAC address.' }),
  mtu: integer({ description: 'MTU in bytes; 0 leaves it as it is.' }),
  promisc: boolean({ description: 'Turn promiscuous mode on.' }),
  allmulti: boolean({ description: 'Turn reception of all multicast frames on or off.' }),
  txQLen: integer({ description: 'Length of the transmit queue in packets.' }),
};

const config = {
  ...tunable,
  dataDir: string({ description: 'Directory for the settings to restore; "/run/cni/tuning" by default.' }),
  runtimeConfig: object({ mac: string() }),
  args: object({ cni: object(tunable) }),
};

type Config = InferShape<typeof config>;
type TuningCall = Call<Config>;
/** The settings requested for the interface and the sandbox; other keys are absent. */
type Settings = Omit<Backup, 'network' | 'boot'>;

export const plugin = definePlugin({
  name: 'tuning',
  summary: 'Sets kernel settings of a sandbox, and properties of its interface.',
  role: 'chained',
  config,
  validate,

  explain: ({ sysctl = {}, mac, mtu, promisc, allmulti, txQLen }) => [
    ...Object.entries(sysctl).map(([name, value]) => `Sets ${name} to ${value} in the container`),
    mac ? `Sets the MAC address of the interface to ${mac}` : '',
    mtu ? `Sets its MTU to ${mtu}` : '',
    promisc ? 'Turns promiscuous mode on' : '',
    allmulti === undefined ? '' : `Turns reception of all multicast frames ${allmulti ? 'on' : 'off'}`,
    txQLen === undefined ? '' : `Sets the length of the transmit queue to ${txQLen}`,
  ],

  async add(call) {
    const result = requirePrevResult(call);
    const wanted = wantedSettings(call);
    await refuseForbidden(Object.keys(wanted.sysctl ?? {}));
    if (Object.keys(wanted).length === 0) return result;

    const { sandbox, ifname } = call;
    const before = currentSettings(sandbox, ifname, wanted);
    saveBackup(call, before);
    for (const [name, value] of Object.entries(wanted.sysctl ?? {})) {
      setSysctl(sandbox, ifname, name, value);
      const old = before.sysctl?.[name];
      if (old !== undefined)
        call.undo(`set sysctl "${name}" back`, () => setSysctl(sandbox, ifname, name, old));
    }
    // Registered first: if one request fails, the kernel still carries out the others.
    call.undo(
      `set interface "${ifname}" back`,
      () => void sandbox.socket.attempt(...linkRequests(sandbox, ifname, before)),
    );
    sandbox.socket.execute(...linkRequests(sandbox, ifname, wanted));
    return withSettings(result, ifname, wanted);
  },

  del(call) {
    const backups = backupsOf(call);
    const before = backups.load(call);
    const sandbox = findOwnSandbox(call);
    if (before && sandbox) restoreSettings(call, sandbox, before);
    backups.remove(call);
  },

  check(call) {
    requirePrevResult(call);
    const wanted = wantedSettings(call);
    const current = currentSettings(call.sandbox, call.ifname, wanted);
    const { sysctl: seen = {} } = current;
    const isUnseen = (name: string) => call.sandbox.netns.run(() => isOnlyWritten(name, call.ifname));
    for (const [name, value] of Object.entries(wanted.sysctl ?? {}))
      if (words(seen[name]) !== words(value) && !(seen[name] === undefined && isUnseen(name)))
        throw new Error(
          `Kernel setting "${name}" is "${seen[name] ?? ''}", but should be "${value}". Delete the container and add it again`,
        );
    for (const key of ['mac', 'mtu', 'promisc', 'allmulti', 'txQLen'] as const)
      if (current[key] !== wanted[key])
        throw new Error(
          `"${key}" of interface "${call.ifname}" is ${current[key]}, but should be ${wanted[key]}. Delete the container and add it again`,
        );
  },

  async status(call) {
    refuseDuplicates(call);
    validate(call.config);
    await refuseForbidden(Object.keys(wantedSysctls(call.config)));
  },

  gc(call) {
    backupsOf(call).removeOthers(call.network, call.validAttachments, (message) => call.warn(message));
  },
});

/** Refuses what can be seen to be wrong from the configuration alone. */
function validate(config: Config): void {
  for (const name of Object.keys(wantedSysctls(config))) sysctlPath(name, 'eth0');
  wantedMac(config);
  refuse(mtuProblem(config.mtu));
}

/** Refuses a kernel setting that is given twice, which only the configuration's text shows. */
function refuseDuplicates({ context: { stdin } }: TuningCall): void {
  const twice = duplicateKey(stdin, 'sysctl');
  if (twice !== undefined) throw new Error(`"sysctl" has "${twice}" twice. Remove one`);
}

/**
 * Combines the requested settings: the configuration's own keys, CNI_ARGS, the runtime's, and "args", which
 * override all of them.
 * @throws Error for what can be refused without looking at the sandbox.
 */
function wantedSettings(call: TuningCall): Settings {
  refuseDuplicates(call);
  const { config, ifname } = call;
  const extra = config.args?.cni ?? {};
  const sysctl = wantedSysctls(config);
  for (const name of Object.keys(sysctl)) sysctlPath(name, ifname);

  const mac = wantedMac(config, call.args(['MAC']).MAC);
  const mtu = extra.mtu ?? config.mtu;
  const allmulti = extra.allmulti ?? config.allmulti;
  const txQLen = extra.txQLen ?? config.txQLen;
  return {
    ...(Object.keys(sysctl).length > 0 && { sysctl }),
    ...(mac && { mac }),
    ...((extra.promisc ?? config.promisc) && { promisc: true }),
    ...(mtu && { mtu }),
    ...(allmulti !== undefined && { allmulti }),
    ...(txQLen !== undefined && { txQLen }),
  };
}

/** The requested MAC address. "args" override all else, even to request none. */
function wantedMac({ args, runtimeConfig, mac }: Config, requested?: string): string | undefined {
  return requestedMac(
    ...(args?.cni?.mac === undefined ? [runtimeConfig?.mac, requested, mac] : [args.cni.mac]),
  );
}

function wantedSysctls({ sysctl, args }: Config): Record<string, string> {
  return { ...sysctl, ...args?.cni?.sysctl };
}

/**
 * The current values of the requested settings, except kernel settings that cannot be read, such as
 * "stable_secret" of IPv6 before it is set.
 * @throws Error when the interface or a kernel setting is missing.
 */
function currentSettings(sandbox: Sandbox, ifname: string, wanted: Settings): Settings {
  const { sysctl, ...ofLink } = wanted;
  const current: Settings = {};
  if (sysctl) current.sysctl = sandbox.netns.run(() => readSysctls(Object.keys(sysctl), ifname));
  if (Object.keys(ofLink).length === 0) return current;

  const link = requireLink(sandbox.socket, ifname);
  const all = linkSettings(link);
  return { ...current, ...Object.fromEntries(Object.entries(all).filter(([key]) => key in ofLink)) };
}

function linkSettings(link: Link): Omit<Required<Settings>, 'sysctl'> {
  return {
    mac: link.mac,
    promisc: link.promisc,
    mtu: link.mtu,
    allmulti: (link.flags & LinkFlag.AllMulti) !== 0,
    txQLen: link.txQueueLength,
  };
}

function setSysctl({ netns }: Sandbox, ifname: string, name: string, value: string): void {
  const path = sysctlPath(name, ifname);
  netns.run(() => writeSysctl(path, value));
}

/** The kernel's errors for a value that the interface can no longer have, say because its parent changed. */
const impossible = ['EINVAL', 'ERANGE', 'EADDRINUSE'];

/** One request for each property, so that an error tells which one failed. */
function linkRequests({ socket }: Sandbox, ifname: string, settings: Settings): Request[] {
  const { mac, promisc, mtu, allmulti, txQLen } = settings;
  const requests = [
    mac !== undefined && { mac },
    promisc !== undefined && { promisc },
    mtu !== undefined && { mtu },
    allmulti !== undefined && { allMulti: allmulti },
    txQLen !== undefined && { txQueueLength: txQLen },
  ].filter((request) => request !== false);
  const link = requests.length > 0 && getLink(socket, ifname);
  return link ? requests.map((request) => setLink(link.index, request, ifname)) : [];
}

/**
 * Restores settings as far as possible: the interface may be gone. Kernel settings that other attachments of
 * the sandbox have set as well are left for the last one of them.
 * @throws NetlinkError when the kernel refuses a value that the interface, if it exists, could have.
 */
function restoreSettings(call: TuningCall, sandbox: Sandbox, before: Settings): void {
  const { ifname } = call;
  const outcomes = sandbox.socket.attempt(...linkRequests(sandbox, ifname, before));
  const shared = sharedSysctls(call, before);
  for (const [name, value] of Object.entries(before.sysctl ?? {})) {
    if (shared.has(name)) continue;
    try {
      setSysctl(sandbox, ifname, name, value);
    } catch (error) {
      call.warn((error as Error).message);
    }
  }
  for (const outcome of outcomes) if (isKernelError(outcome, ...impossible)) call.warn(outcome.message);
  requireGone(outcomes.filter((outcome) => !isKernelError(outcome, ...impossible)));
}

/**
 * Saves what DEL is to restore. Where a chain tunes twice, or another attachment of the sandbox has changed
 * the same setting, that is the value before the first change.
 */
function saveBackup(call: TuningCall, before: Settings): void {
  const backups = backupsOf(call);
  const earlier = backups.load(call);
  const shared = sharedSysctls(call, before);
  const first = Object.entries(before.sysctl ?? {}).map(([name, value]) => [name, shared.get(name) ?? value]);
  const sysctl = { ...Object.fromEntries(first), ...earlier?.sysctl };
  backups.save(call, {
    ...before,
    ...earlier,
    ...(Object.keys(sysctl).length > 0 && { sysctl }),
    network: call.network,
  });
  call.undo('restore the backup of what was set before', () =>
    earlier ? backups.save(call, earlier) : backups.remove(call),
  );
}

/** The original values of kernel settings as the sandbox's other attachments saved them, by name. */
function sharedSysctls(call: TuningCall, { sysctl }: Settings): ReadonlyMap<string, string> {
  return sysctl ? backupsOf(call).sysctlsOfOthers(call) : new Map();
}

function backupsOf(call: TuningCall): Backups {
  return new Backups(call.config.dataDir || '/run/cni/tuning');
}

/** The result, with the interface's MAC address and MTU brought up to date. */
function withSettings(result: Result, ifname: string, { mac, mtu }: Settings): Result {
  return {
    ...result,
    interfaces: result.interfaces.map((entry) =>
      entry.name === ifname && entry.sandbox
        ? { ...entry, ...(mac && { mac }), ...(mtu && entry.mtu && { mtu }) }
        : entry,
    ),
  };
}

/** The kernel separates numbers by tabs. */
function words(text = ''): string {
  return text.trim().split(/\s+/).join(' ');
}
