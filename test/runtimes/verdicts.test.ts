/**
 * `cni validate` predicts what happens with a configuration: whether containerd loads it, and whether cnitool
 * attaches a namespace. A verdict "error" means that one of the two does not work.
 * Runs once: no agent takes part.
 */

import { renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import { until } from '../support/observe.ts';
import { suites } from '../support/plugin.ts';
import { buildCnitool, NetworkTool } from './support/cnitool.ts';
import { Containerd } from './support/containerd.ts';
import { makeNode, type Node } from './support/node.ts';

type Json = Record<string, unknown>;

const addresses = { type: 'host-local', subnet: '10.31.0.0/24', routes: [{ dst: '0.0.0.0/0' }] };
const bridge = { type: 'bridge', bridge: 'br0', isGateway: true, ipam: addresses };
/** A list of plugins, the bridge's with further keys. */
const list = (...plugins: unknown[]) => ({ cniVersion: '1.0.0', name: 'net', plugins });
const bridgeWith = (keys: Json) => list({ ...bridge, ...keys });
const ipamWith = (keys: Json) => bridgeWith({ ipam: { ...addresses, ...keys } });
const ranges = (...sets: Json[][]) => ({ ipam: { type: 'host-local', ranges: sets } });
const single = { cniVersion: '1.0.0', name: 'net', ...bridge };
const onUplink = (type: string, keys: Json = {}) =>
  list({ type, master: 'uplink', ipam: { ...addresses, routes: [] }, ...keys });
const text = JSON.stringify(list(bridge), null, 2);

interface Case {
  /** What is special about it. */
  readonly what: string;
  /** A string as it is, or what becomes JSON. */
  readonly content: string | object;
  /** Ending of the file's name; ".conflist" when left out. */
  readonly ending?: string;
  /** Whether a pod can be attached. */
  readonly works?: true;
}

const cases: readonly Case[] = [
  { what: 'a bridge', content: list(bridge), works: true },
  { what: 'a single plugin in .conf', content: single, ending: '.conf', works: true },
  { what: 'a single plugin in .json', content: single, ending: '.json', works: true },
  { what: 'a list in .conf', content: list(bridge), ending: '.conf' },
  { what: 'a single plugin in .conflist', content: single },
  { what: 'a comma too many', content: text.replace('"1.0.0",', '"1.0.0",,') },
  { what: 'a missing comma', content: text.replace('"1.0.0",', '"1.0.0"') },
  { what: 'a comma at the end', content: text.replace(/\n\}$/, ',\n}') },
  { what: 'an unclosed brace', content: text.slice(0, -1) },
  { what: 'text after the end', content: `${text}}` },
  { what: 'a comment', content: text.replace('{', '{ // the network\n') },
  { what: 'single quotes', content: text.replaceAll('"', "'") },
  { what: 'a byte order mark', content: `\ufeff${text}` },
  { what: 'an empty file', content: '' },
  { what: 'null', content: 'null' },
  { what: 'a list of networks', content: [list(bridge)] },
  { what: 'no name', content: { ...list(bridge), name: undefined } },
  { what: 'a name with a slash', content: { ...list(bridge), name: 'net/work' } },
  { what: 'a number for a name', content: { ...list(bridge), name: 5 } },
  { what: 'a version to come', content: { ...list(bridge), cniVersion: '9.9.9' } },
  { what: 'a version that never was', content: { ...list(bridge), cniVersion: '0.3.9' } },
  { what: 'a number for a version', content: { ...list(bridge), cniVersion: 1 } },
  { what: 'a short version', content: { ...list(bridge), cniVersion: '1.0' } },
  { what: 'plugins as a text', content: { ...list(), plugins: 'bridge' } },
  { what: 'plugins as an object', content: { ...list(), plugins: bridge } },
  { what: 'no plugin in the list', content: list() },
  { what: 'a text for a plugin', content: list('bridge') },
  { what: 'a plugin without type', content: bridgeWith({ type: undefined }) },
  { what: 'an empty type', content: bridgeWith({ type: '' }) },
  { what: 'a plugin that is not installed', content: bridgeWith({ type: 'brigde' }) },
  { what: 'a path for a plugin', content: bridgeWith({ type: '../bin/bridge' }) },
  { what: 'disableCheck in words', content: { ...list(bridge), disableCheck: 'maybe' } },
  { what: 'a long name for the bridge', content: bridgeWith({ bridge: 'abcdefghijklmnop' }) },
  { what: 'a path for a bridge', content: bridgeWith({ bridge: 'br/0' }) },
  { what: 'hairpin and promiscuous mode', content: bridgeWith({ hairpinMode: true, promiscMode: true }) },
  { what: 'an MTU of 20', content: bridgeWith({ mtu: 20 }) },
  { what: 'a negative MTU', content: bridgeWith({ mtu: -1 }) },
  { what: 'an MTU of 70,000', content: bridgeWith({ mtu: 70_000 }) },
  { what: 'a text for an MTU', content: bridgeWith({ mtu: '1400' }) },
  { what: 'a text for true', content: bridgeWith({ isGateway: 'yes' }) },
  {
    what: 'a small MTU with IPv6',
    content: bridgeWith({ mtu: 1000, ...ranges([{ subnet: 'fd00:31::/64' }]) }),
  },
  { what: 'a VLAN of 5000', content: bridgeWith({ vlan: 5000 }) },
  { what: 'a trunk from 50 to 10', content: bridgeWith({ vlanTrunk: [{ minID: 50, maxID: 10 }] }) },
  { what: 'an unknown key', content: bridgeWith({ isGatway: true }), works: true },
  { what: 'a key twice', content: text.replace('"name"', '"name": "other", "name"'), works: true },
  { what: 'no gateway on the bridge', content: bridgeWith({ isGateway: false }), works: true },
  { what: 'no ipam', content: bridgeWith({ ipam: {} }), works: true },
  { what: 'an IPAM plugin that is not installed', content: ipamWith({ type: 'host-locl' }) },
  { what: 'no subnet', content: ipamWith({ subnet: undefined }) },
  { what: 'a subnet with host bits', content: ipamWith({ subnet: '10.31.0.5/24' }) },
  { what: 'a subnet of one address', content: ipamWith({ subnet: '10.31.0.0/32' }) },
  { what: 'a subnet without length', content: ipamWith({ subnet: '10.31.0.0' }) },
  { what: 'a range outside', content: ipamWith({ rangeStart: '10.32.0.5' }) },
  { what: 'a range backwards', content: ipamWith({ rangeStart: '10.31.0.9', rangeEnd: '10.31.0.5' }) },
  { what: 'a gateway of words', content: ipamWith({ gateway: 'router' }) },
  { what: 'a gateway outside', content: ipamWith({ gateway: '10.99.0.1' }) },
  {
    what: 'a gateway outside, but no route',
    content: ipamWith({ gateway: '10.99.0.1', routes: [] }),
    works: true,
  },
  { what: 'a route of words', content: ipamWith({ routes: [{ dst: 'default' }] }) },
  {
    what: "the other family's gateway",
    content: ipamWith({ routes: [{ dst: '0.0.0.0/0', gw: 'fd00::1' }] }),
  },
  { what: 'a route by a stranger', content: ipamWith({ routes: [{ dst: '0.0.0.0/0', gw: '10.99.0.1' }] }) },
  {
    what: 'ranges that overlap',
    content: bridgeWith(ranges([{ subnet: '10.31.0.0/24' }], [{ subnet: '10.31.0.0/25' }])),
  },
  {
    what: 'a set of both families',
    content: bridgeWith(ranges([{ subnet: '10.31.0.0/24' }, { subnet: 'fd00:31::/64' }])),
  },
  {
    what: 'two sets for a version with one address',
    content: {
      ...bridgeWith(ranges([{ subnet: '10.31.0.0/24' }], [{ subnet: '10.32.0.0/24' }])),
      cniVersion: '0.2.0',
    },
  },
  {
    what: 'a static address without length',
    content: bridgeWith({ ipam: { type: 'static', addresses: [{ address: '10.31.0.5' }] } }),
  },
  { what: 'one name server, not in a list', content: bridgeWith({ dns: { nameservers: '192.0.2.1' } }) },
  { what: 'a macvlan', content: onUplink('macvlan'), works: true },
  { what: 'a macvlan of an unknown mode', content: onUplink('macvlan', { mode: 'bridged' }) },
  { what: 'a macvlan on nothing', content: onUplink('macvlan', { master: 'downlink' }) },
  { what: 'a macvlan larger than its master', content: onUplink('macvlan', { mtu: 9000 }) },
  { what: 'an ipvlan of an unknown mode', content: onUplink('ipvlan', { mode: 'l4' }) },
  { what: 'a VLAN without master', content: onUplink('vlan', { master: undefined, vlanId: 5 }) },
  { what: 'a host device without device', content: list({ type: 'host-device' }) },
  { what: 'a ptp without ipam', content: list({ type: 'ptp' }) },
  { what: 'port mappings alone', content: list({ type: 'portmap', capabilities: { portMappings: true } }) },
  { what: 'port mappings that never come', content: list(bridge, { type: 'portmap' }), works: true },
  { what: 'a rate without burst', content: list(bridge, { type: 'bandwidth', ingressRate: 1_000_000 }) },
  {
    what: 'a setting of the whole kernel',
    content: list(bridge, { type: 'tuning', sysctl: { 'kernel.msgmax': '1' } }),
  },
  { what: 'an unknown firewall', content: list(bridge, { type: 'firewall', backend: 'pf' }) },
  { what: 'flannel without flanneld', content: list({ type: 'flannel' }) },
];

test('validate is never wrong', async (t) => {
  const node = await makeNode(t);
  await node.run(['ip', 'link', 'add', 'uplink', 'up', 'type', 'veth', 'peer', 'name', 'far']);
  const containerd = await Containerd.start(node);
  const cnitool = new NetworkTool(node, await buildCnitool());
  t.true(cases.length >= 60);
  for (const [i, one] of cases.entries()) {
    const { what, content, ending = '.conflist', works = false } = one;
    const file = `/etc/cni/net.d/${String(i).padStart(2, '0')}-case${ending}`;
    node.write(file, content);
    const validated = await node.tryRun([
      join(suites.ours, 'cni'),
      'validate',
      '--bin-dir',
      suites.ours,
      file,
    ]);
    const attached = await attaches(node, cnitool);
    rmSync(node.file(file));
    const loaded = await loads(node, containerd, file, content);
    const said = `${what}: ${validated.stdout}${validated.stderr}\ncnitool: ${attached.said}\ncontainerd: ${loaded.said}`;
    t.is(validated.exit === 0, attached.succeeds && loaded.succeeds, said);
    t.is(attached.succeeds && loaded.succeeds, works, said);
    t.regex(`${validated.stdout}`, works ? /0 errors/ : /: error: /, said);
  }
});

interface Verdict {
  succeeds: boolean;
  said: string;
}

/** Whether cnitool attaches a namespace. */
async function attaches(node: Node, cnitool: NetworkTool): Promise<Verdict> {
  const pod = await node.addPod();
  const { exit, stdout, stderr } = await cnitool.try('add', 'net', pod.netns);
  if (exit === 0) await cnitool.run('del', 'net', pod.netns);
  await pod.remove();
  await node.tryRun(['ip', 'link', 'delete', 'br0']);
  return { succeeds: exit === 0, said: exit === 0 ? 'ok' : `${stdout}${stderr}` };
}

/** Whether containerd loads the file, when there is no other. */
async function loads(
  node: Node,
  containerd: Containerd,
  file: string,
  content: string | object,
): Promise<Verdict> {
  // So that what it reports next is about the file.
  await lookAt(node, containerd, '/etc/cni/net.d/00-broken.conflist', '{');
  const said = await lookAt(node, containerd, file, content);
  return { succeeds: said === 'OK', said };
}

/** Has containerd look at a file for a moment. @returns what it says of it. */
async function lookAt(
  node: Node,
  containerd: Containerd,
  file: string,
  content: string | object,
): Promise<string> {
  let said = '';
  let looks = 0;
  await until(`containerd has read "${file}"`, async () => {
    // It reloads when a file is written or renamed, unless it is just doing so. A renamed file is complete.
    if (looks++ % 50 === 0) {
      const next = join(dirname(file), 'next');
      node.write(next, content);
      renameSync(node.file(next), node.file(file));
    }
    said = await containerd.lastNetworkLoad();
    return said.includes(file) || (said === 'OK' && content !== '{');
  });
  rmSync(node.file(file));
  return said;
}
