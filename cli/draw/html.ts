/** A graph as one page for a browser, with nothing to load from elsewhere. */

import { createHash } from 'node:crypto';
import type { Graph } from './graph.ts';
import { escapeXml } from './xml.ts';

/** cli/draw/page/page.ts and page.css, which the build inserts here. */
declare const PAGE_SCRIPT: string;
declare const PAGE_STYLE: string;

/** The page. @param picture drawn by cli/draw/svg.ts. */
export function asPage(graph: Graph, picture: string): string {
  const hash = createHash('sha256').update(PAGE_SCRIPT).digest('base64');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'">
<title>${escapeXml(graph.title)}</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<header>
<label>Search <input id="search" type="search" placeholder="name, address, port, state" autocomplete="off"></label>
<output id="found" for="search"></output>
<button id="out" title="Zoom out (-)" aria-label="Zoom out">−</button>
<button id="in" title="Zoom in (+)" aria-label="Zoom in">+</button>
<button id="fit" title="Whole picture (0)">Whole picture</button>
</header>
<main id="view">${picture}</main>
<aside id="about" role="status" hidden></aside>
<script>${PAGE_SCRIPT}</script>
</body>
</html>
`;
}
