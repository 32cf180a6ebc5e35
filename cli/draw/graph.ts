/** What a picture shows: interfaces, bridges, networks and pods as nodes, and what joins them as edges. */

import type { State } from '../state.ts';

/** What a node is, which decides how it looks. */
export type NodeKind = 'outside' | 'interface' | 'overlay' | 'bridge' | 'network' | 'pod' | 'list';

/** One pod in a list of many. */
export interface Row {
  /** Name, addresses, published ports, state in a word. */
  readonly cells: readonly string[];
  readonly state: State['kind'];
}

/** A box of the picture. */
export interface GraphNode {
  readonly id: string;
  readonly kind: NodeKind;
  readonly title: string;
  /** Texts below the title. */
  readonly lines: readonly string[];
  /** Pods and lists: the worst state that was seen. */
  readonly state?: State['kind'];
  /** Why it is not ok, in words. */
  readonly problems: readonly string[];
  /** Lists: their pods. */
  readonly rows: readonly Row[];
}

/** What an edge stands for. */
export type EdgeKind = 'link' | 'masqueraded' | 'published' | 'overlay';

/** A line of the picture; "from" is the end nearer to the outside. */
export interface GraphEdge {
  readonly from: string;
  readonly to: string;
  readonly kind: EdgeKind;
  /** Lines of its label. */
  readonly labels: readonly string[];
}

/** A host's container networks. Its texts have no control characters. */
export interface Graph {
  readonly title: string;
  /** How much there is, in what state, and when it was seen. */
  readonly summary: string;
  readonly nodes: readonly GraphNode[];
  readonly edges: readonly GraphEdge[];
}

/** States from the worst to the best. */
export const severity = ['broken', 'orphaned', 'unchecked', 'ok'] as const satisfies State['kind'][];

/** What a state is called in the legend. */
export const stateMeanings: Readonly<Record<State['kind'], string>> = {
  ok: 'ok: CHECK succeeded',
  broken: 'broken: CHECK failed',
  orphaned: 'orphaned: of no container',
  unchecked: 'unchecked: nothing can tell',
};

/** What an edge is called in the legend. */
export const edgeMeanings: Readonly<Record<EdgeKind, string>> = {
  link: 'connected or routed',
  masqueraded: 'masqueraded (configured)',
  published: 'published port',
  overlay: 'overlay network',
};
