/** ovs: connects a sandbox to a bridge of Open vSwitch. */

import { type AttachmentId, attachmentKey } from '../lib/attachment.ts';
import { type Attached, defineMainPlugin } from '../lib/cni/main-plugin.ts';
import { hostInterface, openDatabase, requireBridge, whereReachable } from '../lib/cni/open-vswitch.ts';
import { requirePrevResult } from '../lib/cni/plugin.ts';
import { removeVethPair } from '../lib/cni/remove-interface.ts';
import type { Result } from '../lib/cni/result.ts';
import { runAll } from '../lib/cni/steps.ts';
import type { Address } from '../lib/ip.ts';
import { requireLink, setLink } from '../lib/kernel/link.ts';
import { isNetnsGone } from '../lib/kernel/netns.ts';
import { createVethPair, type VethPair } from '../lib/kernel/veth.ts';
import {
  addPort,
  attachmentOf,
  findInterface,
  findPort,
  isPortOf,
  listPodPorts,
  removePorts,
  vlanColumns,
} from '../lib/ovsdb/ports.ts';
import { collectSettings, forgetSettings, rememberSettings } from './ovs/cache.ts';
import { removeOwnPort, stalePorts, waitUntilUp } from './ovs/port.ts';
import {
  argumentsOf,
  bridgeOf,
  config,
  ignoredTrunks,
  patienceOf,
  settingsOf,
  validate,
  vlansOf,
} from './ovs/settings.ts';

/** What ADD has made. */
interface OvsPort extends Attached, VethPair {
  /** The requested MAC address, if any. */
  mac: string | undefined;
}

export const plugin = defineMainPlugin({
  name: 'ovs',
  summary: 'Connects a sandbox to a bridge of Open vSwitch.',
  kind: 'veth',
  config,
  validate,
  ignores: ignoredTrunks,

  explain: (config) => [
    'Creates a veth pair: one end in the container, the other on the host',
    `Makes that a port of bridge "${config.bridge ?? 'br-int'}" of Open vSwitch, which must exist, in one transaction`,
    config.trunk?.length
      ? `Passes tagged VLANs: ${JSON.stringify(config.trunk)}`
      : config.vlan === undefined
        ? ''
        : `Puts the port into VLAN ${config.vlan}`,
    'Waits until Open vSwitch has taken the port up',
  ],

  async create(call): Promise<OvsPort> {
    const settings = settingsOf(call);
    validate(settings);
    const { ovnPort, mac, podUid } = argumentsOf(call);
    const name = bridgeOf(call, settings);
    using db = await openDatabase(settings);
    const bridge = await requireBridge(db, name);
    // The sandbox has no such interface yet, so any port of this attachment has lost its own.
    const stale = await stalePorts(call, db, (port) => isPortOf(port, call.attachment, call.netns));
    const pair = createVethPair(call, {
      name: call.ifname,
      mtu: settings.mtu ?? 0,
      ...(mac && { mac }),
    });
    const { hostLink, sandboxLink } = pair;
    call.undo(`remove port "${hostLink.name}"`, () => removeOwnPort(call, settings, hostLink.name));
    await db.transact(`add port "${hostLink.name}" to bridge "${name}"`, [
      ...removePorts(stale),
      ...addPort(bridge.uuid, {
        ...vlansOf(settings),
        attachment: call.attachment,
        name: hostLink.name,
        netns: call.netns,
        podUid,
        type: settings.interface_type ?? '',
        ofportRequest: settings.ofport_request || undefined,
        ovnPort,
      }),
    ]);
    call.undo('forget the settings', () => forgetSettings(call.attachment));
    rememberSettings(call, settings);
    return {
      ...pair,
      mac,
      interfaces: [
        { name: hostLink.name, mac: hostLink.mac },
        { name: sandboxLink.name, mac: sandboxLink.mac, sandbox: call.netns },
      ],
      link: sandboxLink,
    };
  },

  async connect(call, { mac, hostLink, sandboxLink, interfaces }, { ips }: Result) {
    const address = ips.find(({ address }) => address.family === 4)?.address.address;
    if (!mac && address) {
      const { socket } = call.sandbox;
      socket.execute(setLink(sandboxLink.index, { mac: macFor(address) }, sandboxLink.name));
      interfaces.at(-1)!.mac = requireLink(socket, sandboxLink.index).mac;
    }
    const settings = settingsOf(call);
    using db = await openDatabase(settings);
    // Only now: on a bridge with many ports, Open vSwitch takes longer than the rest of ADD does.
    await waitUntilUp(db, hostLink.name, patienceOf(settings));
  },

  async remove(call) {
    const settings = settingsOf(call);
    await runAll(
      call,
      () => removeVethPair(call),
      () => removeOwnPort(call, settings),
    );
    forgetSettings(call.attachment);
  },

  async check(call) {
    const settings = settingsOf(call);
    const entry = hostInterface(requirePrevResult(call));
    if (!entry) throw new Error('"prevResult" names no port. Pass the result of this attachment\'s ADD');
    const name = bridgeOf(call, settings);
    using db = await openDatabase(settings);
    const bridge = await requireBridge(db, name);
    const again = 'Delete the container and add it again';
    const port = await findPort(db, entry.name);
    if (!port || !bridge.ports.includes(port.uuid))
      throw new Error(`Interface "${entry.name}" is not a port of bridge "${name}". ${again}`);
    const taken = await findInterface(db, entry.name);
    if (!taken || taken.error || taken.ofport === undefined || taken.ofport < 0)
      throw new Error(
        `Open vSwitch cannot use interface "${entry.name}": ${taken?.error || 'it has not taken it up'}. ${again}`,
      );
    const wanted = vlansOf(settings);
    const mode = vlanColumns(wanted).vlan_mode;
    const has = JSON.stringify([
      port.vlanMode,
      mode === 'access' ? port.tag : port.trunks.toSorted(byNumber),
    ]);
    const wants = JSON.stringify([mode, mode === 'access' ? wanted.tag : wanted.trunks]);
    if (has !== wants)
      throw new Error(
        `Port "${entry.name}" has VLAN mode and VLANs ${has}, but should have ${wants}. ${again}`,
      );
    if (!call.hostLink(entry.name)?.up)
      throw new Error(`Interface "${entry.name}" is down. Bring it up with "ip link set ${entry.name} up"`);
  },

  async status(call) {
    const settings = settingsOf(call);
    const name = bridgeOf(call, settings);
    using db = await openDatabase(settings);
    await requireBridge(db, name);
  },

  async gc(call) {
    const settings = settingsOf(call);
    await whereReachable(call, settings, async (db) => {
      const isValid = (own: AttachmentId) =>
        call.validAttachments.some((one) => attachmentKey(one) === attachmentKey(own));
      const all = await listPodPorts(db);
      const ports = all.filter((port) => {
        const own = attachmentOf(port);
        // Ports that ovs-cni made do not tell their network.
        return own
          ? own.network === call.network && !isValid(own)
          : isNetnsGone(port.externalIds.contNetns ?? '');
      });
      if (ports.length > 0) await db.transact('remove stale ports', removePorts(ports));
      for (const own of ports.map(attachmentOf)) if (own) forgetSettings(own);
      // Where ovs-cni's ports remain, it needs their files, and they do not tell which ones these are.
      if (all.every((port) => attachmentOf(port) || ports.includes(port)))
        collectSettings(call.network, call.validAttachments);
    });
  },
});

/**
 * A MAC address made from the IPv4 address, so that neighbours' ARP entries stay valid when another container
 * gets the address.
 */
function macFor(address: Address): string {
  return [0x0a, 0x58, ...address.toBytes()].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function byNumber(a: number, b: number): number {
  return a - b;
}
