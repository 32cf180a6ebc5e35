/** The texts in a node's box and where they go, and thus how large the box is. */

import type { GraphNode, Row } from './graph.ts';
import { textWidth, wrap } from './text-size.ts';

/** Heights of the two sizes of text, in pixels. */
export const fontSizes = { title: 14, text: 12 } as const;

/** A line of text in a box. */
export interface BoxText {
  /** From the box's left side, in pixels. */
  readonly x: number;
  /** The baseline, from the box's top. */
  readonly y: number;
  readonly text: string;
  /** Classes of the style sheet. */
  readonly style: string;
}

/** The inside of a node's box; in pixels. */
export interface Box {
  readonly width: number;
  readonly height: number;
  readonly texts: readonly BoxText[];
}

const padding = 12;
const lineHeight = 17;
/** Longer lines are wrapped. */
const longestLine = 270;
const cellGap = 14;
/** A list with more rows than this has several columns. */
const mostRows = 24;

/** Lays out a node's texts. */
export function boxOf(node: GraphNode): Box {
  const rows = rowsOf(node.rows);
  const longest = Math.max(longestLine, rows.width);
  const texts: BoxText[] = [];
  let [width, y] = [rows.width, padding + 4];
  const write = (text: string, style: string, bold: boolean, size: number) => {
    const measure = (part: string) => textWidth(part, size, bold);
    for (const line of wrap(text, longest, measure)) {
      texts.push({ x: padding, y: y + 8, text: line, style });
      width = Math.max(width, measure(line));
      y += lineHeight;
    }
  };
  write(node.title, 'title', true, fontSizes.title);
  for (const line of node.lines) write(line, 'dim', false, fontSizes.text);
  if (node.state && node.rows.length === 0) write(node.state, `word ${node.state}`, true, fontSizes.text);
  if (node.rows.length > 0) {
    for (const text of rows.texts) texts.push({ ...text, y: text.y + y + 4 });
    y += rows.height + 10;
  }
  for (const problem of node.problems) write(problem, 'problem', false, fontSizes.text);
  return { width: width + 2 * padding, height: y + padding - 4, texts };
}

/** Rows of a list, side by side in several columns if there are many. */
function rowsOf(rows: readonly Row[]): Box {
  if (rows.length === 0) return { width: 0, height: 0, texts: [] };
  const widths = rows[0]!.cells.map((_, i) => {
    const isState = i === rows[0]!.cells.length - 1;
    const widest = Math.max(...rows.map(({ cells }) => textWidth(cells[i]!, fontSizes.text, isState)));
    return widest > 0 ? widest + cellGap : 0;
  });
  const rowWidth = widths.reduce((sum, one) => sum + one, 0) + cellGap;
  const square = Math.ceil(Math.sqrt((rows.length * lineHeight) / rowWidth));
  const columns = Math.min(Math.ceil(rows.length / mostRows), Math.max(square, 2));
  const perColumn = Math.ceil(rows.length / columns);
  const texts = rows.flatMap(({ cells, state }, i) => {
    let x = padding + Math.floor(i / perColumn) * rowWidth;
    return cells.flatMap((text, j) => {
      const left = x;
      x += widths[j]!;
      const style = j === cells.length - 1 ? ` word ${state}` : j === 0 ? '' : ' dim';
      return text === ''
        ? []
        : [{ x: left, y: (i % perColumn) * lineHeight + 8, text, style: `cell${style}` }];
    });
  });
  return { width: columns * rowWidth - cellGap * 2, height: perColumn * lineHeight, texts };
}
