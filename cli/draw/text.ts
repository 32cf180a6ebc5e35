/** A graph as a tree, no wider than the terminal. */

import { paint } from '../terminal.ts';
import type { Graph, GraphNode } from './graph.ts';
import { wrap } from './text-size.ts';

const styles = { ok: 'green', broken: 'red', orphaned: 'magenta', unchecked: 'yellow' } as const;

/** Indents the continuation of a line that was broken. */
const hanging = '  ';

/** A line before it is broken, and how it is painted. */
interface Line {
  readonly text: string;
  readonly style?: Parameters<typeof paint>[0];
}

/**
 * Writes a graph as a tree, from the outside to the pods.
 * @param width columns of the terminal.
 */
export function asText(graph: Graph, width: number): string {
  const lines: string[] = [];
  const written = new Set<string>();
  const write = (prefix: string, rest: string, line: Line) => {
    const room = Math.max(8, width - prefix.length);
    const isLong = columnsOf(line.text) > room;
    wrap(line.text, isLong ? room - hanging.length : room, columnsOf).forEach((part, i) => {
      lines.push((i === 0 ? prefix : rest + hanging) + (line.style ? paint(line.style, part) : part));
    });
  };
  const writeNode = (node: GraphNode, prefix: string, rest: string, labels: readonly string[]) => {
    write(prefix, rest, { text: node.title, style: 'bold' });
    if (written.has(node.id)) return write(`${rest}   `, `${rest}   `, { text: 'as above' });
    written.add(node.id);
    const children = graph.edges
      .filter(({ from, kind }) => from === node.id && kind !== 'published')
      .map((edge) => ({ edge, child: graph.nodes.find(({ id }) => id === edge.to)! }));
    const bar = `${rest}${children.length > 0 ? '│' : ' '}  `;
    for (const line of detailsOf(node, labels, graph, width - bar.length)) write(bar, bar, line);
    children.forEach(({ edge, child }, i) => {
      const isLast = i === children.length - 1;
      writeNode(child, `${rest}${isLast ? '└─ ' : '├─ '}`, `${rest}${isLast ? '   ' : '│  '}`, edge.labels);
    });
  };
  write('', '', { text: graph.title, style: 'bold' });
  write('', '', { text: graph.summary });
  const targets = new Set(graph.edges.filter(({ kind }) => kind !== 'published').map(({ to }) => to));
  const leads = (node: GraphNode) =>
    graph.edges.some(({ from, kind }) => from === node.id && kind !== 'published');
  const roots = graph.nodes.filter(
    (node) => !targets.has(node.id) && (node.kind !== 'outside' || leads(node)),
  );
  for (const root of roots) writeNode(root, '', '', []);
  return lines.join('\n');
}

/** What a box says. @param room how many columns there are. */
function detailsOf(node: GraphNode, labels: readonly string[], { edges }: Graph, room: number): Line[] {
  const ports = edges.filter(({ to, kind }) => to === node.id && kind === 'published');
  return [
    ...(labels.length > 0 ? [{ text: labels.join(', ') }] : []),
    ...node.lines.map((text) => ({ text })),
    ...ports.map((edge) => ({
      text: `${node.kind === 'list' ? '' : 'published: '}${edge.labels.join(' ')}`,
    })),
    ...tableOf(node.rows, room),
    ...(node.state && node.rows.length === 0 ? [{ text: node.state, style: styles[node.state] }] : []),
    ...node.problems.map((text) => ({ text, style: styles[node.state ?? 'unchecked'] })),
  ];
}

/** Rows with their cells aligned in columns, unless there is not enough room for that. */
function tableOf(rows: GraphNode['rows'], room: number): Line[] {
  const widths = (rows[0]?.cells ?? []).map((_, i) =>
    Math.max(...rows.map(({ cells }) => columnsOf(cells[i]!))),
  );
  const used = widths.filter((width) => width > 0);
  const isTable = used.reduce((sum, width) => sum + width + 2, -2) <= room;
  const padded = (cell: string, i: number) => cell + ' '.repeat(widths[i]! - columnsOf(cell));
  return rows.map(({ cells, state }) => {
    const shown = cells.map(isTable ? padded : (cell) => cell).filter((cell) => cell !== '');
    return { text: shown.join('  ').trimEnd(), ...(state !== 'ok' && { style: styles[state] }) };
  });
}

/** Columns of a terminal that a text takes. East Asian characters and emoji take two. */
function columnsOf(text: string): number {
  return [...text].reduce(
    (sum, character) =>
      sum +
      (/[\u1100-\u115F\u2E80-\uA4CF\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF00-\uFF60\uFFE0-\uFFE6]|\p{Extended_Pictographic}/u.test(
        character,
      )
        ? 2
        : /\p{M}/u.test(character)
          ? 0
          : 1),
    0,
  );
}
