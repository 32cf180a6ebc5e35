/** Where attachments meet on the host: at a bridge, at a parent interface, or in a routed network. */

import type { Link } from '../../lib/kernel/link.ts';
import { vlanId } from '../../lib/kernel/link-kinds.ts';
import type { Route } from '../../lib/kernel/route.ts';
import { bridgeOf, mainOf } from '../inner.ts';
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

/** What the host itself has, from the outside to the places where pods are attached. */
export class HostGraph {
  readonly nodes = new Map<string, GraphNode>();
  readonly edges: GraphEdge[] = [];
  readonly places = new Map<string, Place>();
  private readonly scene: Scene;

  /** Adds the outside, uplinks, overlays, bridges, parents and routed networks. */
  constructor(scene: Scene) {
    this.scene = scene;
    const { attachments, links } = scene.inventory;
    for (const link of links.filter(({ kind }) => kind === 'bridge')) this.place(interfaceNode(link, scene));
    for (const one of attachments) this.place(placeOf(one, scene)).attachments.push(one);
    for (const link of links.filter(({ name }) => this.places.get(`link:${name}`)?.node.kind === 'interface'))
      this.join(link);
    this.addPorts();
    for (const place of this.places.values()) this.connect(place);
  }

  private add(node: GraphNode): GraphNode {
    const known = this.nodes.get(node.id);
    if (!known) this.nodes.set(node.id, node);
    return known ?? node;
  }

  private place(node: GraphNode): Place {
    const place = this.places.get(node.id) ?? { node: this.add(node), attachments: [], strays: [] };
    this.places.set(node.id, place);
    return place;
  }

  private addEdge(from: GraphNode, to: GraphNode, kind: EdgeKind, ...labels: string[]): void {
    if (!this.edges.some((edge) => edge.from === from.id && edge.to === to.id))
      this.edges.push({ from: from.id, to: to.id, kind, labels });
  }

  /** Adds an interface, and what it leads to: the outside, or the interface that it is a VLAN of. */
  private join(link: Link): GraphNode {
    const node = this.add(interfaceNode(link, this.scene));
    const { links } = this.scene.inventory;
    const below = links.find(({ index }) => index === link.parent && link.parentNetnsId === undefined);
    if (node.kind === 'overlay') this.addEdge(this.add(otherNodes), node, 'overlay');
    else if (link.kind === 'vlan' && below)
      this.addEdge(this.join(below), node, 'link', `VLAN ${vlanId(link)}`);
    else if (!['bridge', 'dummy'].includes(link.kind)) this.addEdge(this.add(outside), node, 'link');
    return node;
  }

  /** Adds the bridge ports that belong to no attachment. */
  private addPorts(): void {
    const { attachments, links } = this.scene.inventory;
    const owned = new Set(attachments.flatMap(({ hostInterfaces }) => hostInterfaces));
    const bridges = new Map(links.filter(({ kind }) => kind === 'bridge').map((link) => [link.index, link]));
    for (const link of links.filter(({ name }) => !owned.has(name))) {
      const bridge = link.master === undefined ? undefined : bridges.get(link.master);
      if (!bridge || leadsToGateway(link, bridge, links)) continue;
      const place = this.places.get(idOf(bridge))!;
      if (link.kind === 'veth' && link.parentNetnsId !== undefined) place.strays.push(link.name);
      else this.addEdge(this.join(link), place.node, 'link', 'port');
    }
  }

  /** Joins a place to the overlay and to the uplinks by which its pods reach the outside. */
  private connect({ node, attachments }: Place): void {
    const { networks, links, addresses } = this.scene.inventory;
    const used = networks.filter(({ name }) => attachments.some(({ network }) => network === name));
    const about = used.length > 0 ? used : networksOf(node, networks);
    if (about.some(isFlannel))
      for (const link of links.filter(({ kind }) => overlayKinds.includes(kind)))
        this.addEdge(this.join(link), node, 'overlay');
    const isMasqueraded = about.some(({ plugins }) => plugins.some(({ config }) => config.ipMasq === true));
    const isRouted =
      (node.kind === 'bridge' && addresses.some((address) => isOf(address, node, links))) ||
      (node.kind === 'network' && about.some((network) => mainOf(network).type === 'ptp'));
    if (about.length === 0 || !(isRouted || isMasqueraded)) return;
    const [kind, label] = isMasqueraded
      ? (['masqueraded', 'masqueraded'] as const)
      : (['link', 'routed'] as const);
    for (const link of links.filter((one) => isUplink(one, this.scene.routes) && idOf(one) !== node.id))
      this.addEdge(this.join(link), node, kind, label);
  }
}

/** Whatever is beyond the uplinks. */
export const outside = plain('outside', 'outside', 'Outside');
const otherNodes = plain('nodes', 'outside', 'Other nodes');

/** The bridge of an attachment, the parent of its interface, or else its network. */
function placeOf(one: HostAttachment, scene: Scene): GraphNode {
  const { networks, links } = scene.inventory;
  const network = networks.find(({ name }) => name === one.network);
  const named = links.find(({ kind, name }) => kind === 'bridge' && one.hostInterfaces.includes(name));
  if (named) return interfaceNode(named, scene);
  const main = network ? mainOf(network) : { type: '', config: {} };
  const { type, config } = main;
  const bridge = bridgeOf(main);
  if (bridge !== undefined) {
    const link = links.find(({ name }) => name === bridge);
    if (link) return interfaceNode(link, scene);
    return plain(`link:${bridge}`, 'bridge', `bridge ${bridge}`, 'does not exist');
  }
  if (parentKinds.includes(type)) {
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
    !network ? 'not configured' : type === 'ptp' ? 'ptp: veth pairs, routed by the host' : type,
  );
}

function isFlannel({ plugins }: NetworkList): boolean {
  return plugins[0]?.type === 'flannel';
}

/** The networks that are configured to use a place. */
function networksOf({ id }: GraphNode, networks: readonly NetworkList[]): NetworkList[] {
  return networks.filter((network) => id === `link:${bridgeOf(mainOf(network))}`);
}

function isUplink({ index }: Link, routes: readonly Route[]): boolean {
  return routes.some((route) => route.dst.length === 0 && leadsBy(route, index));
}

function leadsBy({ link, hops }: Route, index: number): boolean {
  return link === index || hops.some((hop) => hop.link === index);
}

/** Interfaces with the gateways of a bridge's VLANs, which the plugin names after both, as in "br0.100". */
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
    ...(isOverlay
      ? routes.filter((route) => route.gw && leadsBy(route, link.index)).map(({ dst }) => `to ${dst}`)
      : []),
  );
  const about = isBridge ? networksOf(node, networks) : [];
  return { ...node, lines: [...node.lines, ...about.map(({ name }) => `network ${name}`)] };
}

/** A node without a state. Empty lines are left out. */
function plain(id: string, kind: GraphNode['kind'], title: string, ...lines: string[]): GraphNode {
  return { id, kind, title, lines: lines.filter((line) => line !== ''), problems: [], rows: [] };
}
