/** Debian's Chromium, to see what a person would see: it parses, lays out and measures. */

import { pathToFileURL } from 'node:url';
import { type Browser, launch, type Page } from 'puppeteer-core';
import type { Teardown } from './host.ts';

/** Starts a browser without a window; it ends with the test. */
export async function startBrowser(t: Teardown): Promise<Browser> {
  const browser = await launch({
    executablePath: '/usr/bin/chromium',
    // As root, Chromium has no sandbox of its own.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
    protocolTimeout: 120_000,
    timeout: 120_000,
  });
  t.teardown(() => browser.close());
  return browser;
}

/** What a page did that nobody asked for: errors, requests for other files, dialogs. */
export interface Misdeeds {
  readonly seen: string[];
}

/** Opens a file. @returns the page, and its misdeeds, which are added as they happen. */
export async function openFile(browser: Browser, file: string): Promise<{ page: Page } & Misdeeds> {
  const page = await browser.newPage();
  const seen: string[] = [];
  const url = pathToFileURL(file).href;
  page.on('pageerror', (error) => seen.push(String(error)));
  page.on('console', (message) => seen.push(message.text()));
  page.on('request', (request) => {
    if (request.url() !== url) seen.push(request.url());
  });
  page.on('dialog', (dialog) => {
    seen.push(dialog.message());
    void dialog.dismiss();
  });
  await page.setViewport({ width: 1200, height: 800 });
  await page.goto(url, { timeout: 120_000 });
  return { page, seen };
}

/** A rectangle of the window, in pixels. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

/** A box of the picture, as the browser lays it out. */
export interface DrawnNode extends Box {
  readonly id: string;
  readonly classes: readonly string[];
  readonly texts: readonly (Box & {
    readonly text: string;
    /** Contrast ratio between its colour and that of the box, as defined by WCAG 2.2. */
    readonly contrast: number;
  })[];
}

/** An edge of the picture. */
export interface DrawnEdge {
  readonly from: string;
  readonly to: string;
  readonly classes: readonly string[];
  readonly label: readonly string[];
  readonly labelBox: Box | undefined;
}

/** A picture, as the browser lays it out. */
export interface Drawing {
  /** Why it is not XML; "" when it is. */
  readonly fault: string;
  readonly picture: Box;
  readonly nodes: readonly DrawnNode[];
  readonly edges: readonly DrawnEdge[];
  /** Every text in the picture. */
  readonly texts: readonly (Box & { readonly text: string })[];
}

/** Measures an SVG. @param scheme the colour scheme that the viewer prefers. */
export async function measure(
  browser: Browser,
  svg: string,
  scheme: 'light' | 'dark' = 'light',
): Promise<Drawing> {
  const page = await browser.newPage();
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  const drawing = (await page.evaluate(`(${inPage})(${JSON.stringify(svg)})`)) as Drawing;
  await page.close();
  return drawing;
}

/** Runs in the page. */
const inPage = `(svg) => {
  const parsed = new DOMParser().parseFromString(svg, 'image/svg+xml');
  const fault = parsed.querySelector('parsererror')?.textContent ?? '';
  const root = document.adoptNode(parsed.documentElement);
  document.body.replaceChildren(root);
  const boxOf = (element) => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return { left, top, right, bottom };
  };
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(getComputedStyle(a).fill), luminance(getComputedStyle(b).fill)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const textOf = (text) => ({ text: text.textContent, ...boxOf(text) });
  return {
    fault,
    picture: boxOf(root),
    nodes: [...root.querySelectorAll('.node[data-id]')].map((node) => {
      const rect = node.querySelector('rect');
      return {
        id: node.dataset.id, classes: [...node.classList], ...boxOf(rect),
        texts: [...node.querySelectorAll('text')].map((text) => ({ ...textOf(text), contrast: contrast(text, rect) })),
      };
    }),
    edges: [...root.querySelectorAll('.edge[data-from]')].map((edge) => ({
      from: edge.dataset.from, to: edge.dataset.to, classes: [...edge.classList],
      label: [...edge.querySelectorAll('text')].map((text) => text.textContent),
      labelBox: edge.querySelector('.label') ? boxOf(edge.querySelector('.label')) : undefined,
    })),
    texts: [...root.querySelectorAll('text')].map(textOf),
  };
}`;
