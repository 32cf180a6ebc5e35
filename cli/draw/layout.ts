/** Where boxes and edges go, by ELK's layered algorithm: the outside on the left, the pods on the right. */

import type { ELK, ElkExtendedEdge, ElkNode } from 'elkjs/lib/elk-api.js';
import { type Box, boxOf, fontSizes } from './box.ts';
import type { Graph, GraphEdge, GraphNode, NodeKind } from './graph.ts';
import { textWidth } from './text-size.ts';

/** A place in the picture, in pixels. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/** A node where it is drawn. */
export interface PlacedNode extends Point {
  readonly node: GraphNode;
  readonly box: Box;
}

/** An edge where it is drawn. */
export interface PlacedEdge {
  readonly edge: GraphEdge;
  readonly points: readonly Point[];
  /** Top left of the label. */
  readonly label: Point & { readonly width: number; readonly height: number };
}

/** A graph laid out; in pixels. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly nodes: readonly PlacedNode[];
  readonly edges: readonly PlacedEdge[];
}

/** Height of a line of a label. */
export const labelLineHeight = 15;

const options = {
  'elk.algorithm': 'layered',
  'elk.direction': 'RIGHT',
  'elk.edgeRouting': 'ORTHOGONAL',
  'elk.spacing.nodeNode': '18',
  'elk.spacing.edgeNode': '16',
  'elk.spacing.edgeEdge': '10',
  'elk.spacing.edgeLabel': '4',
  'elk.spacing.componentComponent': '32',
  'elk.layered.spacing.nodeNodeBetweenLayers': '44',
  'elk.layered.spacing.edgeNodeBetweenLayers': '18',
  'elk.layered.nodePlacement.strategy': 'BRANDES_KOEPF',
  'elk.layered.nodePlacement.bk.fixedAlignment': 'BALANCED',
  'elk.layered.considerModelOrder.strategy': 'NODES_AND_EDGES',
  'elk.aspectRatio': '1.6',
} as const;

/** The layer of some kinds of nodes, whatever they are joined to. */
const layers: Partial<Record<NodeKind, 'FIRST' | 'LAST'>> = { outside: 'FIRST', pod: 'LAST', list: 'LAST' };

/** Lays a graph out. */
export async function layOut(graph: Graph): Promise<Layout> {
  const { default: elk } = await import('elkjs/lib/elk.bundled.js');
  const engine: ELK = new elk.default();
  const boxes = graph.nodes.map((node) => ({ node, box: boxOf(node) }));
  const root: ElkNode = await engine.layout({
    id: 'root',
    layoutOptions: options,
    children: boxes.map(({ node, box }): ElkNode => {
      const layer = layers[node.kind];
      return {
        id: node.id,
        width: box.width,
        height: box.height,
        ...(layer && { layoutOptions: { 'elk.layered.layering.layerConstraint': layer } }),
      };
    }),
    edges: graph.edges.map(
      ({ from, to, labels }, i): ElkExtendedEdge => ({
        id: `${i}`,
        sources: [from],
        targets: [to],
        labels: labels.length > 0 ? [{ text: labels.join('\n'), ...labelSize(labels) }] : [],
      }),
    ),
  });
  return {
    width: root.width ?? 0,
    height: root.height ?? 0,
    nodes: boxes.map(({ node, box }, i) => {
      const { x = 0, y = 0 } = root.children![i]!;
      return { node, box, x, y };
    }),
    edges: graph.edges.map((edge, i) => {
      const { sections: [section] = [], labels: [label] = [] } = root.edges![i]!;
      const { x = 0, y = 0, width = 0, height = 0 } = label ?? {};
      return {
        edge,
        points: section ? [section.startPoint, ...(section.bendPoints ?? []), section.endPoint] : [],
        label: { x, y, width, height },
      };
    }),
  };
}

function labelSize(labels: readonly string[]): { width: number; height: number } {
  const widths = labels.map((line) => textWidth(line, fontSizes.text - 1));
  return { width: Math.max(...widths) + 8, height: labels.length * labelLineHeight + 2 };
}
