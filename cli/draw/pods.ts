/** Pods, each in a box of its own or, where many meet, as rows of a list. */

import { mainOf } from '../inner.ts';
import { displayName, type HostAttachment } from '../inventory.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import { formatPorts } from '../list/table.ts';
import type { State } from '../state.ts';
import { count } from '../terminal.ts';
import { type GraphEdge, type GraphNode, severity } from './graph.ts';
import { outside, type Place } from './places.ts';

/** A place with more attachments than this shows them as a list. */
const mostBoxesOfPlace = 12;

/** Where there would be more boxes than this, the places with the most attachments show lists as well. */
const mostBoxes = 24;

/** "web-9" comes before "web-10". */
const byName = new Intl.Collator('en', { numeric: true });

/** States of all attachments. */
export type States = ReadonlyMap<HostAttachment, State>;

/** Boxes, lists and what joins them to their places. */
export function podGraph(
  places: readonly Place[],
  states: States,
  networks: readonly NetworkList[],
): { nodes: GraphNode[]; edges: GraphEdge[] } {
  const nodes: GraphNode[] = [];
  const edges: GraphEdge[] = [];
  const boxed = new Map<string, HostAttachment[]>();
  const longest = mostBefore(places.map(({ attachments }) => attachments.length));
  for (const { node, attachments: unsorted, strays } of places) {
    const attachments = unsorted.toSorted((a, b) => byName.compare(displayName(a), displayName(b)));
    for (const name of strays) {
      const id = `stray:${name}`;
      nodes.push({
        id,
        kind: 'pod',
        title: name,
        lines: [],
        rows: [],
        state: 'unchecked',
        problems: ['a port that no recorded attachment has'],
      });
      edges.push({ from: node.id, to: id, kind: 'link', labels: [] });
    }
    if (attachments.length > longest) {
      const list = listOf(node, attachments, states);
      nodes.push(list);
      edges.push({ from: node.id, to: list.id, kind: 'link', labels: [] });
      const ports = attachments.reduce((sum, one) => sum + one.ports.length, 0);
      if (ports > 0)
        edges.push({
          from: outside.id,
          to: list.id,
          kind: 'published',
          labels: [count(ports, 'published port')],
        });
      continue;
    }
    for (const one of attachments) {
      const id = `pod:${one.containerId}`;
      boxed.set(id, [...(boxed.get(id) ?? []), one]);
      edges.push({ from: node.id, to: id, kind: 'link', labels: linkLabels(one, node, networks) });
      if (one.ports.length > 0)
        edges.push({ from: outside.id, to: id, kind: 'published', labels: formatPorts(one).split(' ') });
    }
  }
  for (const [id, attachments] of boxed) nodes.push(podNode(id, attachments, states));
  return { nodes, edges };
}

/** How many attachments a place may have before it shows a list. @param numbers of attachments by place. */
function mostBefore(numbers: readonly number[]): number {
  for (let most = mostBoxesOfPlace; most > 1; most--) {
    const boxes = numbers.filter((number) => number <= most).reduce((sum, number) => sum + number, 0);
    if (boxes <= mostBoxes) return most;
  }
  return 1;
}

/** The worst of some states. */
function worstOf(kinds: readonly State['kind'][]): State['kind'] {
  return severity.find((kind) => kinds.includes(kind)) ?? 'ok';
}

function podNode(id: string, attachments: readonly HostAttachment[], states: States): GraphNode {
  const seen = attachments.map((one) => ({ one, state: states.get(one)! }));
  return {
    id,
    kind: 'pod',
    title: displayName(attachments[0]!),
    rows: [],
    lines: attachments.flatMap(({ ifname, ips, network }) => [
      `${ifname} in ${network}${ips.length > 0 ? ':' : ''}`,
      ...ips,
    ]),
    state: worstOf(seen.map(({ state }) => state.kind)),
    problems: seen.flatMap(({ one, state }) =>
      state.problems.map((problem) => (attachments.length > 1 ? `${one.ifname}: ${problem}` : problem)),
    ),
  };
}

function listOf({ id, title }: GraphNode, attachments: readonly HostAttachment[], states: States): GraphNode {
  const seen = attachments
    .map((one) => ({ one, state: states.get(one)! }))
    .sort((a, b) => severity.indexOf(a.state.kind) - severity.indexOf(b.state.kind));
  const tally = severity.flatMap((kind) => {
    const number = seen.filter(({ state }) => state.kind === kind).length;
    return number > 0 ? `${number} ${kind}` : [];
  });
  return {
    id: `list:${id}`,
    kind: 'list',
    title: `${count(seen.length, 'attachment')} of ${title}`,
    lines: [tally.join(', ')],
    state: worstOf(seen.map(({ state }) => state.kind)),
    problems: seen.flatMap(({ one, state }) =>
      state.problems.map((problem) => `${displayName(one)}: ${problem}`),
    ),
    rows: seen.map(({ one, state }) => ({
      cells: [displayName(one), one.ips.join(' '), formatPorts(one), state.kind],
      state: state.kind,
    })),
  };
}

/** How an attachment is joined to its place: the host end of its veth pair and its VLANs, or its kind. */
function linkLabels(one: HostAttachment, place: GraphNode, networks: readonly NetworkList[]): string[] {
  const network = networks.find(({ name }) => name === one.network);
  const { type, config } = network ? mainOf(network) : { type: '', config: {} };
  // The bridge itself, and the gateways of its VLANs, are not ports.
  const port = one.hostInterfaces.filter((name) => !`link:${name}.`.startsWith(`${place.id}.`));
  const mode = typeof config.mode === 'string' ? `, ${config.mode} mode` : '';
  const ids = type === 'vlan' ? config.vlanId : config.vlan;
  return [
    ...port,
    ...(place.kind === 'interface' ? [`${type}${mode}`] : []),
    ...(typeof ids === 'number' && ids > 0 ? [`VLAN ${ids}`] : []),
    ...(Array.isArray(config.vlanTrunk) ? [`VLAN trunk`] : []),
  ];
}
