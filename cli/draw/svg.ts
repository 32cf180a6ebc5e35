/** A graph as SVG: colours for light and dark, every state also in words, a legend. */

import { fontSizes } from './box.ts';
import { type EdgeKind, edgeMeanings, type Graph, stateMeanings } from './graph.ts';
import { type Layout, labelLineHeight, layOut, type PlacedEdge, type PlacedNode } from './layout.ts';
import { textWidth } from './text-size.ts';
import { escapeXml } from './xml.ts';

/**
 * The colours of Okabe and Ito, which the colour-blind can tell apart, made darker for text on white and
 * lighter for text on black.
 */
const style = `
svg { --paper: #ffffff; --ink: #1b1f24; --dim: #4d5661; --box: #f6f8fa; --line: #59636e; --ok: #00694d;
  --broken: #b34700; --orphaned: #9c3f75; --unchecked: #4d5661; --published: #005a96; font-family: sans-serif; }
@media (prefers-color-scheme: dark) { svg { --paper: #14181d; --ink: #f0f3f6; --dim: #b4bdc7; --box: #20262d;
  --line: #9aa4af; --ok: #35c79b; --broken: #ff9452; --orphaned: #eba3c9; --unchecked: #b4bdc7; --published: #6cb8f0; } }
.paper { fill: var(--paper); } text { fill: var(--ink); font-size: ${fontSizes.text}px; white-space: pre; }
.title { font-size: ${fontSizes.title}px; font-weight: bold; } .heading { font-size: 18px; font-weight: bold; }
.dim { fill: var(--dim); } .word { font-weight: bold; }
.node rect { fill: var(--box); stroke: var(--line); stroke-width: 1.5; }
.node.bridge rect, .node.network rect { stroke-width: 2.5; } .node.outside rect { stroke-dasharray: 2 3; }
.node.overlay rect { stroke-dasharray: 7 4; }
${['ok', 'broken', 'orphaned', 'unchecked'].map((kind) => `text.${kind} { fill: var(--${kind}); } .node.is-${kind} rect { stroke: var(--${kind}); }`).join('\n')}
.node.is-broken rect { stroke-width: 3; } .node.is-orphaned rect { stroke-width: 2; stroke-dasharray: 5 3; }
.edge path { fill: none; stroke: var(--line); stroke-width: 1.5; } .edge text { font-size: ${fontSizes.text - 1}px; }
.edge.masqueraded path { stroke-dasharray: 6 3; } .edge.overlay path { stroke-dasharray: 2 3; }
.edge.published path { stroke: var(--published); stroke-width: 2; } .edge.published text { fill: var(--published); }
.edge .label { fill: var(--paper); } marker path { fill: var(--published); }
`;

const margin = 24;
const headHeight = 64;
const legendGap = 26;

/** Draws a graph. @returns a whole SVG document. */
export async function asSvg(graph: Graph): Promise<string> {
  const layout = await layOut(graph);
  const legend = legendOf(graph, layout.width);
  const width = Math.ceil(
    2 * margin +
      Math.max(
        layout.width,
        legend.width,
        textWidth(graph.title, 18, true),
        textWidth(graph.summary, fontSizes.text),
      ),
  );
  const height = Math.ceil(margin + headHeight + layout.height + legend.height + margin);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${escapeXml(graph.title)}</title>
<desc>${escapeXml(graph.summary)}</desc>
<style>${style}</style>
<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z"/></marker></defs>
<rect class="paper" width="${width}" height="${height}"/>
<g id="picture">
<text class="heading" x="${margin}" y="${margin + 16}">${escapeXml(graph.title)}</text>
<text class="dim" x="${margin}" y="${margin + 38}">${escapeXml(graph.summary)}</text>
<g transform="translate(${margin} ${margin + headHeight})">
${graphic(layout)}
</g>
<g class="legend" transform="translate(${margin} ${margin + headHeight + Math.ceil(layout.height)})">
${legend.svg}
</g>
</g>
</svg>
`;
}

function graphic({ nodes, edges }: Layout): string {
  return [...edges.map(edgeSvg), ...nodes.map(nodeSvg)].join('\n');
}

function nodeSvg({ node, box, x, y }: PlacedNode): string {
  const classes = ['node', node.kind, ...(node.state ? [`is-${node.state}`] : [])].join(' ');
  const texts = box.texts.map(
    (one) => `<text x="${one.x}" y="${one.y}" class="${one.style}">${escapeXml(one.text)}</text>`,
  );
  const radius = node.kind === 'outside' ? 18 : 6;
  return `<g class="${classes}" data-id="${escapeXml(node.id)}" transform="translate(${round(x)} ${round(y)})"><rect width="${box.width}" height="${box.height}" rx="${radius}"/>${texts.join('')}</g>`;
}

function edgeSvg({ edge, points, label }: PlacedEdge): string {
  const path = points.map(({ x, y }, i) => `${i === 0 ? 'M' : 'L'}${round(x)} ${round(y)}`).join('');
  const arrow = edge.kind === 'published' ? ' marker-end="url(#arrow)"' : '';
  const back =
    edge.labels.length > 0
      ? `<rect class="label" x="${round(label.x)}" y="${round(label.y)}" width="${label.width}" height="${label.height}"/>`
      : '';
  const lines = edge.labels.map(
    (text, i) =>
      `<text x="${round(label.x + 4)}" y="${round(label.y + 12 + i * labelLineHeight)}">${escapeXml(text)}</text>`,
  );
  return `<g class="edge ${edge.kind}" data-from="${escapeXml(edge.from)}" data-to="${escapeXml(edge.to)}"><path d="${path}"${arrow}/>${back}${lines.join('')}</g>`;
}

/** What the picture contains, and how it is drawn; in rows as wide as the picture. */
function legendOf({ nodes, edges }: Graph, width: number): { svg: string; width: number; height: number } {
  const shownStates = new Set(nodes.flatMap(({ state, rows }) => [state, ...rows.map((row) => row.state)]));
  const shownEdges = new Set(edges.map(({ kind }) => kind));
  const entries = [
    ...Object.entries(stateMeanings)
      .filter(([kind]) => shownStates.has(kind as keyof typeof stateMeanings))
      .map(([kind, meaning]) => ({
        meaning,
        symbol: (x: number, y: number) =>
          `<g class="node is-${kind}" transform="translate(${x} ${y - 11})"><rect width="24" height="13" rx="3"/></g>`,
      })),
    ...Object.entries(edgeMeanings)
      .filter(([kind]) => shownEdges.has(kind as EdgeKind))
      .map(([kind, meaning]) => ({
        meaning,
        symbol: (x: number, y: number) =>
          `<g class="edge ${kind}"><path d="M${x} ${y - 4}h24"${kind === 'published' ? ' marker-end="url(#arrow)"' : ''}/></g>`,
      })),
  ];
  const most = Math.max(width, 480);
  let [x, y, widest] = [0, legendGap + 12, 0];
  const parts = entries.map(({ meaning, symbol }) => {
    const taken = 32 + textWidth(meaning, fontSizes.text);
    if (x > 0 && x + taken > most) [x, y] = [0, y + 22];
    const part = `${symbol(x, y)}<text x="${x + 32}" y="${y}">${escapeXml(meaning)}</text>`;
    x += taken + 20;
    widest = Math.max(widest, x - 20);
    return part;
  });
  return { svg: parts.join('\n'), width: widest, height: entries.length > 0 ? y + 6 : 0 };
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}
