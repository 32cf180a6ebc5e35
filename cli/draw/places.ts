/** Where attachments meet on the host: at a bridge, at a parent interface, or in a network that is routed. */

import { isObject } from '../../lib/cni/schema.ts';
import type { Link } from '../../lib/kernel/link.ts';
import { vlanId } from '../../lib/kernel/link-kinds.ts';
import type { Route } from '../../lib/kernel/route.ts';
import type { HostAttachment, Inventory } from '../inventory.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import type { EdgeKind, GraphEdge, GraphNode } from './graph.ts';

/** What a picture is drawn from. */
export interface Scene {
  readonly inventory: Inventory;
  /** Routes of the host's main table. */
  readonly routes: readonly Route[];
}

/** A place of the host, and the attachments that meet there. */
export interface Place {
  readonly node: GraphNode;
  readonly attachments: HostAttachment[];
  /** Ports of the bridge that lead to some other namespace, but belong to no recorded attachment. */
  readonly strays: string[];
}

const parentKinds = ['macvlan', 'ipvlan', 'vlan'];
const overlayKinds = ['vxlan', 'geneve', 'wireguard', 'ipip', 'sit', 'gre'];

/** Nodes and edges of the host, from the outside to the places; pods are not among them. */
export interface HostGraph {
  readonly nodes: GraphNode[];
  readonly edges: GraphEdge[];
  readonly places: Place[];
}

/** Lays down what the host has: the outside, uplinks, overlays, bridges, parents and routed networks. */
export function hostGraph(scene: Scene): HostGraph {
  const { networks, attachments, links } = scene.inventory;
  const nodes = new Map<string, GraphNode>();
  const edges: GraphEdge[] = [];
  const places = new Map<string, Place>();
  const add = (node: GraphNode) => {
    if (!nodes.has(node.id)) nodes.set(node.id, node);
    return nodes.get(node.id)!;
  };
  const join = (from: string, to: string, kind: EdgeKind, ...labels: string[]) => {
    if (!edges.some((edge) => edge.from === from && edge.to === to)) edges.push({ from, to, kind, labels });
  };
  /** An interface, with all that is below it down to the outside. */
  const reached = new Set<string>();
  const addInterface = (link: Link): GraphNode => {
    const node = add(interfaceNode(link, scene));
    if (reached.has(node.id)) return node;
    reached.add(node.id);
    const below = links.find(({ index }) => index === link.parent && link.parentNetnsId === undefined);
    if (link.kind === 'vlan' && below) join(addInterface(below).id, node.id, 'link', `VLAN ${vlanId(link)}`);
    else if (overlayKinds.includes(link.kind)) {
      join(add(plain('nodes', 'outside', 'Other nodes')).id, node.id, 'overlay');
      if (below) join(addInterface(below).id, node.id, 'overlay', 'carried by');
    } else if (link.kind !== 'bridge' && link.kind !== 'dummy')
      join(add(plain('outside', 'outside', 'Outside')).id, node.id, 'link');
    return node;
  };
  const uplinks = links.filter((link) => isUplink(link, scene.routes));
  const overlays = links.filter(({ kind }) => overlayKinds.includes(kind));
  const isBusy = attachments.length > 0;

  for (const bridge of links.filter(({ kind }) => kind === 'bridge')) {
    const node = add(interfaceNode(bridge, scene));
    places.set(node.id, { node, attachments: [], strays: [] });
  }
  for (const one of attachments) {
    const node = placeOf(one, scene);
    const place = places.get(node.id) ?? { node: add(node), attachments: [], strays: [] };
    places.set(node.id, place);
    place.attachments.push(one);
    const link = links.find((candidate) => idOf(candidate) === node.id);
    if (link && node.kind === 'interface') addInterface(link);
  }
  const owned = new Set(attachments.flatMap(({ hostInterfaces }) => hostInterfaces));
  for (const link of links) {
    const bridge = links.find(({ index, kind }) => index === link.master && kind === 'bridge');
    if (!bridge || owned.has(link.name) || leadsToGateway(link, bridge, links)) continue;
    const leadsElsewhere = link.kind === 'veth' && link.parentNetnsId !== undefined;
    if (leadsElsewhere) places.get(idOf(bridge))!.strays.push(link.name);
    else join(addInterface(link).id, idOf(bridge), 'link', 'port');
  }
  for (const { node, attachments: here } of places.values()) {
    const used = networks.filter(({ name }) => here.some(({ network }) => network === name));
    const about = used.length > 0 ? used : networksOf(node, networks);
    for (const overlay of about.some(isFlannel) ? overlays : [])
      join(addInterface(overlay).id, node.id, 'overlay');
    if (!isBusy && about.length === 0) continue;
    const isMasqueraded = about.some(({ plugins }) => plugins.some(({ config }) => config.ipMasq === true));
    const isRouted =
      (node.kind === 'bridge' && scene.inventory.addresses.some((address) => isOf(address, node, links))) ||
      (node.kind === 'network' && about.some((network) => mainType(network) === 'ptp'));
    if (isRouted || isMasqueraded)
      for (const uplink of uplinks.filter((link) => idOf(link) !== node.id))
        join(
          addInterface(uplink).id,
          node.id,
          isMasqueraded ? 'masqueraded' : 'link',
          isMasqueraded ? 'masqueraded' : 'routed',
        );
  }
  return { nodes: [...nodes.values()], edges, places: [...places.values()] };
}

/** The bridge of an attachment, the parent of its interface, or else its network. */
function placeOf(one: HostAttachment, scene: Scene): GraphNode {
  const { networks, links } = scene.inventory;
  const network = networks.find(({ name }) => name === one.network);
  const named = links.find(({ kind, name }) => kind === 'bridge' && one.hostInterfaces.includes(name));
  if (named) return interfaceNode(named, scene);
  const type = network && mainType(network);
  const config = network ? mainConfig(network) : {};
  if (type === 'bridge') {
    const link = links.find(({ name }) => name === bridgeOf(config));
    if (link) return interfaceNode(link, scene);
    return plain(`link:${bridgeOf(config)}`, 'bridge', `bridge ${bridgeOf(config)}`, 'does not exist');
  }
  if (type && parentKinds.includes(type)) {
    const name = typeof config.master === 'string' && config.master;
    const link = links.find((candidate) =>
      name ? candidate.name === name : isUplink(candidate, scene.routes),
    );
    if (link) return interfaceNode(link, scene);
    if (name) return plain(`link:${name}`, 'interface', name, 'does not exist');
  }
  return plain(
    `network:${one.network}`,
    'network',
    `network ${one.network}`,
    type === undefined ? 'not configured' : type === 'ptp' ? 'ptp: veth pairs, routed by the host' : type,
  );
}

/** The type of the plugin that makes a network's interface; that of flannel's delegate. */
export function mainType(network: NetworkList): string {
  if (!isFlannel(network)) return network.plugins[0]?.type ?? '';
  const { type } = mainConfig(network);
  return typeof type === 'string' ? type : 'bridge';
}

/** The configuration that decides where a network's interfaces are. */
export function mainConfig(network: NetworkList): Readonly<Record<string, unknown>> {
  const config = network.plugins[0]?.config ?? {};
  if (!isFlannel(network)) return config;
  return isObject(config.delegate) ? config.delegate : {};
}

function isFlannel({ plugins }: NetworkList): boolean {
  return plugins[0]?.type === 'flannel';
}

function bridgeOf(config: Readonly<Record<string, unknown>>): string {
  return typeof config.bridge === 'string' && config.bridge ? config.bridge : 'cni0';
}

/** The networks that are configured to use a place. */
function networksOf({ id }: GraphNode, networks: readonly NetworkList[]): NetworkList[] {
  return networks.filter(
    (network) => mainType(network) === 'bridge' && id === `link:${bridgeOf(mainConfig(network))}`,
  );
}

function isUplink({ index }: Link, routes: readonly Route[]): boolean {
  return routes.some((route) => route.dst.length === 0 && leadsBy(route, index));
}

function leadsBy({ link, hops }: Route, index: number): boolean {
  return link === index || hops.some((hop) => hop.link === index);
}

/** Interfaces with the gateways of a bridge's VLANs: the plugin names them after both, as in "br0.100". */
function vlanGateways(bridge: Link, links: readonly Link[]): Link[] {
  return links.filter(
    ({ name }) => /^\.\d+$/.test(name.replace(bridge.name, '')) && name.startsWith(bridge.name),
  );
}

/** True for the port by which a bridge reaches the gateway of a VLAN. */
function leadsToGateway(
  { parent, parentNetnsId, index }: Link,
  bridge: Link,
  links: readonly Link[],
): boolean {
  return (
    parentNetnsId === undefined &&
    vlanGateways(bridge, links).some((gateway) => gateway.index === parent || gateway.index === index)
  );
}

function idOf({ name }: Link): string {
  return `link:${name}`;
}

function isOf(
  { link, scope }: Inventory['addresses'][number],
  { id }: GraphNode,
  links: readonly Link[],
): boolean {
  const bridge = links.find((candidate) => idOf(candidate) === id);
  if (!bridge || scope !== 0) return false;
  return [bridge, ...vlanGateways(bridge, links)].some(({ index }) => index === link);
}

function interfaceNode(link: Link, { inventory, routes }: Scene): GraphNode {
  const { networks, links, addresses } = inventory;
  const isBridge = link.kind === 'bridge';
  const addressesOf = ({ index }: Link) =>
    addresses.filter((one) => one.link === index && one.scope === 0).map(({ prefix }) => `${prefix}`);
  const vlans = isBridge ? vlanGateways(link, links) : [];
  const isOverlay = overlayKinds.includes(link.kind);
  const node = plain(
    idOf(link),
    isBridge ? 'bridge' : isOverlay ? 'overlay' : 'interface',
    isBridge ? `bridge ${link.name}` : link.name,
    link.up ? '' : 'down',
    isBridge ? '' : isOverlay ? `${link.kind} overlay` : link.kind,
    ...addressesOf(link),
    ...vlans.map((vlan) =>
      [`VLAN ${vlan.name.slice(link.name.length + 1)}:`, ...addressesOf(vlan)].join(' '),
    ),
    ...(isOverlay ? routes.filter((route) => leadsBy(route, link.index)).map(({ dst }) => `to ${dst}`) : []),
  );
  const about = isBridge ? networksOf(node, networks) : [];
  return { ...node, lines: [...node.lines, ...about.map(({ name }) => `network ${name}`)] };
}

/** A node without a state. Lines that are empty are left out. */
function plain(id: string, kind: GraphNode['kind'], title: string, ...lines: string[]): GraphNode {
  return { id, kind, title, lines: lines.filter((line) => line !== ''), problems: [], rows: [] };
}
