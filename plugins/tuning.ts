/** tuning: sets kernel settings of a sandbox, and properties of its interface. */

import type { Call } from '../lib/cni/call.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import type { Result } from '../lib/cni/result.ts';
import { boolean, type InferShape, integer, object, record, string } from '../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { getLink, type Link, LinkFlag, requireLink, setLink } from '../lib/kernel/link.ts';
import { formatMac, parseMac } from '../lib/kernel/mac.ts';
import type { Sandbox } from '../lib/kernel/sandbox.ts';
import { readSysctl, writeSysctl } from '../lib/kernel/sysctl.ts';
import type { Request } from '../lib/netlink/message.ts';
import { type Backup, Backups } from './tuning/backups.ts';
import { duplicateKey } from './tuning/duplicates.ts';
import { refuseForbidden, sysctlPath } from './tuning/sysctl.ts';

const tunable = {
  sysctl: record(string(), { description: 'Kernel settings below "net."; IFNAME stands for the interface.' }),
  mac: string({ description: 'MAC address.' }),
  mtu: integer({ description: 'MTU in bytes; 0 leaves it as it is.' }),
  promisc: boolean({ description: 'Set promiscuous mode on.' }),
  allmulti: boolean({ description: 'Set reception of all multicast frames on or off.' }),
  txQLen: integer({ description: 'Length of the transmit queue in packets.' }),
};

const config = {
  ...tunable,
  dataDir: string({ description: 'Directory for what to put back; "/run/cni/tuning" by default.' }),
  runtimeConfig: object({ mac: string() }),
  args: object({ cni: object(tunable) }),
};

type TuningCall = Call<InferShape<typeof config>>;
/** What is asked of the interface and the sandbox, each key only if it is. */
type Settings = Omit<Backup, 'network'>;

export const plugin = definePlugin({
  name: 'tuning',
  summary: 'Sets kernel settings of a sandbox, and properties of its interface.',
  role: 'chained',
  config,

  add(call) {
    const result = requirePrevResult(call);
    const wanted = wantedSettings(call, call.args(['MAC']).MAC);
    if (Object.keys(wanted).length === 0) return result;

    const sandbox = call.sandbox;
    const before = currentSettings(sandbox, call.ifname, wanted);
    saveBackup(call, before);
    call.undo(() => restoreSettings(call, sandbox, before));
    writeSysctls(sandbox, call.ifname, wanted);
    sandbox.socket.execute(...linkRequests(sandbox, call.ifname, wanted));
    return withSettings(result, call.ifname, wanted);
  },

  del(call) {
    const backups = backupsOf(call);
    const before = backups.load(call);
    const sandbox = call.sandboxIfPresent;
    if (before && sandbox) restoreSettings(call, sandbox, before);
    backups.remove(call);
  },

  check(call) {
    requirePrevResult(call);
    const wanted = wantedSettings(call, call.args(['MAC']).MAC);
    const current = currentSettings(call.sandbox, call.ifname, wanted);
    for (const [name, value] of Object.entries(wanted.sysctl ?? {}))
      if (words(current.sysctl?.[name]) !== words(value))
        throw new Error(`Kernel setting "${name}" is "${current.sysctl?.[name]}" where "${value}" is wanted`);
    for (const key of ['mac', 'mtu', 'promisc', 'allmulti', 'txQLen'] as const)
      if (current[key] !== wanted[key])
        throw new Error(
          `"${key}" of interface "${call.ifname}" is ${current[key]} where ${wanted[key]} is wanted`,
        );
  },

  status(call) {
    try {
      wantedSettings(call);
    } catch (error) {
      throw new CniError(ErrorCode.NotAvailable, (error as Error).message);
    }
  },

  gc(call) {
    backupsOf(call).removeOthers(call.config.name, call.validAttachments);
  },
});

/**
 * Puts together what is asked for: the configuration's own keys, CNI_ARGS, the runtime's, and "args" over all of them.
 * @throws Error for what can be refused without looking at the sandbox.
 */
function wantedSettings({ config, ifname, context: { stdin } }: TuningCall, macArgument?: string): Settings {
  const twice = duplicateKey(stdin, 'sysctl');
  if (twice !== undefined) throw new Error(`"sysctl" has "${twice}" twice. Remove one`);
  const extra = config.args?.cni ?? {};
  const sysctl = { ...config.sysctl, ...extra.sysctl };
  for (const name of Object.keys(sysctl)) sysctlPath(name, ifname);
  refuseForbidden(Object.keys(sysctl));

  const mac = extra.mac || config.runtimeConfig?.mac || macArgument || config.mac;
  const macBytes = mac ? parseMac(mac) : undefined;
  if (mac && !macBytes) throw new Error(`"${mac}" is not a MAC address, such as "0a:58:0a:01:00:05"`);
  const mtu = extra.mtu || config.mtu;
  const allmulti = extra.allmulti ?? config.allmulti;
  const txQLen = extra.txQLen ?? config.txQLen;
  return {
    ...(Object.keys(sysctl).length > 0 && { sysctl }),
    ...(macBytes && { mac: formatMac(macBytes) }),
    ...((extra.promisc ?? config.promisc) && { promisc: true }),
    ...(mtu && { mtu }),
    ...(allmulti !== undefined && { allmulti }),
    ...(txQLen !== undefined && { txQLen }),
  };
}

/** The values that the settings asked for have now. @throws Error when the interface or a kernel setting is missing. */
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
    promisc: (link.flags & LinkFlag.Promisc) !== 0,
    mtu: link.mtu,
    allmulti: (link.flags & LinkFlag.AllMulti) !== 0,
    txQLen: link.txQueueLength,
  };
}

function readSysctls(names: readonly string[], ifname: string): Record<string, string> {
  const values: Record<string, string> = {};
  for (const name of names) {
    const value = readSysctl(sysctlPath(name, ifname));
    if (value === undefined)
      throw new Error(
        `There is no kernel setting "${name}" in the sandbox. Correct its name; a setting of the whole node cannot be set for a sandbox`,
      );
    values[name] = value;
  }
  return values;
}

function writeSysctls({ netns }: Sandbox, ifname: string, { sysctl = {} }: Settings): void {
  netns.run(() => {
    for (const [name, value] of Object.entries(sysctl)) writeSysctl(sysctlPath(name, ifname), value);
  });
}

/** One request a property, so that an error says which. */
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

/** Puts settings back as far as they still can be: the interface may be gone, and what is left is about to go. */
function restoreSettings(call: TuningCall, sandbox: Sandbox, before: Settings): void {
  const { ifname } = call;
  sandbox.socket.attempt(...linkRequests(sandbox, ifname, before));
  for (const [name, value] of Object.entries(before.sysctl ?? {})) {
    try {
      writeSysctls(sandbox, ifname, { sysctl: { [name]: value } });
    } catch (error) {
      call.warn((error as Error).message);
    }
  }
}

/** Where a chain tunes twice, DEL puts back what was before the first time. */
function saveBackup(call: TuningCall, before: Settings): void {
  const backups = backupsOf(call);
  const earlier = backups.load(call);
  call.undo(() => (earlier ? backups.save(call, earlier) : backups.remove(call)));
  const sysctl = { ...before.sysctl, ...earlier?.sysctl };
  backups.save(call, {
    ...before,
    ...earlier,
    ...(Object.keys(sysctl).length > 0 && { sysctl }),
    network: call.config.name,
  });
}

function backupsOf(call: TuningCall): Backups {
  return new Backups(call.config.dataDir || '/run/cni/tuning');
}

/** The result with what it says of the interface brought up to date. */
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
