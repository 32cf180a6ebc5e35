/** Makes the graph of a host's container networks from what is found on the host. */

import { hostname } from 'node:os';
import { listRoutes, RouteTable } from '../../lib/kernel/route.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { lookOnce } from '../../lib/kernel/sharing.ts';
import { takeInventory } from '../inventory.ts';
import { cacheDir, configDir, environment } from '../settings.ts';
import { checkStates, isBad } from '../state.ts';
import { count } from '../terminal.ts';
import { type Graph, type GraphEdge, type GraphNode, severity } from './graph.ts';
import { HostGraph, outside } from './places.ts';
import { podGraph } from './pods.ts';

/** A graph, and files that could not be read for it. */
export interface Survey {
  readonly graph: Graph;
  readonly problems: readonly string[];
  /** Whether an attachment is broken or orphaned. */
  readonly isBad: boolean;
}

/** Looks at the host and runs CHECK of every attachment. Nothing is changed. */
export async function survey(): Promise<Survey> {
  const once = lookOnce();
  const inventory = await takeInventory(configDir(), cacheDir(), once);
  const states = await checkStates(inventory.attachments, inventory, environment(), once);
  // Without the attachments that were deleted meanwhile.
  inventory.attachments = inventory.attachments.filter((one) => states.has(one));
  const host = new HostGraph({ inventory, routes: mainRoutes() });
  const pods = podGraph([...host.places.values()], states, inventory.networks);
  const edges = [...host.edges, ...pods.edges];
  // Even a host without an uplink may publish ports.
  const isPublished = pods.edges.some(({ from }) => from === outside.id);
  const nodes = new Map([...(isPublished ? [[outside.id, outside] as const] : []), ...host.nodes]);
  const kinds = [...states.values()].map(({ kind }) => kind);
  const tally = severity.map((kind) => ({ kind, number: kinds.filter((one) => one === kind).length }));
  const graph = {
    title: `Container networks of ${hostname()}`,
    summary: [
      [
        count(kinds.length, 'attachment'),
        ...tally.filter(({ number }) => number > 0).map(({ kind, number }) => `${number} ${kind}`),
      ].join(', '),
      `seen ${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC`,
    ].join('; '),
    nodes: [...nodes.values(), ...pods.nodes].map(withCleanTexts),
    edges: edges.map((edge): GraphEdge => ({ ...edge, labels: edge.labels.map(clean) })),
  };
  return { graph, isBad: kinds.some(isBad), problems: inventory.problems };
}

function mainRoutes(): ReturnType<typeof listRoutes> {
  using socket = openRouteSocket();
  return ([4, 6] as const).flatMap((family) => listRoutes(socket, { family, table: RouteTable.Main }));
}

function withCleanTexts(node: GraphNode): GraphNode {
  return {
    ...node,
    title: clean(node.title),
    lines: node.lines.map(clean),
    problems: node.problems.map(clean),
    rows: node.rows.map((row) => ({ ...row, cells: row.cells.map(clean) })),
  };
}

/** Names come from anybody: removes what would control a terminal, and what XML cannot contain. */
function clean(text: string): string {
  return text
    .toWellFormed()
    .replace(/\s+/g, ' ')
    .replace(/[\p{Cc}\p{Cf}\uFFFE\uFFFF]/gu, '�');
}
