/** `cni draw`: a picture of the host's container networks. */

import { writeFileSync } from 'node:fs';
import type { CommandModule } from 'yargs';
import { type HostAttachment, type Inventory, takeInventory } from './inventory.ts';
import { formatPorts } from './list/table.ts';
import { cacheDir, configDir } from './settings.ts';
import { paint, print } from './terminal.ts';

/** Attachments that meet at one place of the host: a bridge, or the host itself. */
interface Group {
  title: string;
  /** Addresses, and what the network does. */
  notes: string[];
  attachments: HostAttachment[];
  /** Ports of the bridge that no attachment owns. */
  strays: string[];
}

export const draw: CommandModule<object, { svg: string | undefined }> = {
  command: 'draw',
  describe: "Draw this host's container networks",
  builder: (yargs) =>
    yargs
      .option('svg', { type: 'string', requiresArg: true, describe: 'Write the picture to this file' })
      .example('$0 draw', 'In the terminal')
      .example('$0 draw --svg host.svg', 'As a file for a browser')
      .epilogue('What no longer belongs to a container is marked with ✘.'),
  handler: async ({ svg }) => {
    const groups = groupsOf(await takeInventory(configDir(), cacheDir()));
    if (svg === undefined) return print(asText(groups));
    writeFileSync(svg, asSvg(groups));
    print(`Written to ${svg}`);
  },
};

function groupsOf({ networks, attachments, links, addresses }: Inventory): Group[] {
  const bridges = links.filter(({ kind }) => kind === 'bridge');
  const onBridge = (one: HostAttachment) => bridges.find(({ name }) => one.hostInterfaces.includes(name));
  const noteOf = (name: string) =>
    networks
      .filter(({ plugins }) =>
        plugins.some(({ config }) => (config.bridge || (config.type === 'bridge' && 'cni0')) === name),
      )
      .map(
        ({ name: network, plugins }) =>
          `network ${network}${plugins.some(({ config }) => config.ipMasq) ? ', masqueraded' : ''}`,
      );
  const groups = bridges.map((bridge): Group => {
    const own = attachments.filter((one) => onBridge(one) === bridge);
    const owned = new Set(own.flatMap(({ hostInterfaces }) => hostInterfaces));
    return {
      title: `bridge ${bridge.name}${bridge.up ? '' : ' (down)'}`,
      notes: [
        ...addresses
          .filter(({ link, scope }) => link === bridge.index && scope === 0)
          .map(({ prefix }) => `${prefix}`),
        ...noteOf(bridge.name),
      ],
      attachments: own,
      strays: links
        .filter(({ master, name }) => master === bridge.index && !owned.has(name))
        .map(({ name }) => name),
    };
  });
  const rest = attachments.filter((one) => !onBridge(one));
  return rest.length > 0
    ? [
        ...groups,
        { title: 'routed, or on interfaces of their own', notes: [], attachments: rest, strays: [] },
      ]
    : groups;
}

/** The line of an attachment: its port on the host, its interface, addresses, published ports. */
function describe(one: HostAttachment): string {
  const port = one.hostInterfaces.at(-1);
  const ports = formatPorts(one);
  return [port && `${port} ──`, one.ifname, one.ips.join(' '), one.containerId, ports && `[${ports}]`]
    .filter(Boolean)
    .join(' ');
}

function asText(groups: readonly Group[]): string {
  if (groups.length === 0) return 'This host has no container networks.';
  const lines = [paint('bold', 'host')];
  groups.forEach((group, i) => {
    const last = i === groups.length - 1;
    lines.push(`${last ? '└─' : '├─'} ${paint('bold', group.title)}  ${group.notes.join(', ')}`.trimEnd());
    const children = [
      ...group.attachments.map((one) =>
        one.orphaned.length > 0
          ? paint('red', `✘ ${describe(one)} (${one.orphaned.join('; ')})`)
          : describe(one),
      ),
      ...group.strays.map((name) => paint('yellow', `${name} (of no recorded container)`)),
    ];
    children.forEach((child, j) => {
      lines.push(`${last ? '   ' : '│  '}${j === children.length - 1 ? '└─' : '├─'} ${child}`);
    });
  });
  return lines.join('\n');
}

const [boxWidth, boxHeight, gap, perRow] = [250, 74, 16, 4];

function asSvg(groups: readonly Group[]): string {
  const parts: string[] = [];
  let y = 20;
  for (const group of groups) {
    const boxes = [
      ...group.attachments.map((one) => ({
        lines: [
          one.containerId,
          `${one.ifname} ${one.ips.join(' ')}`,
          formatPorts(one),
          one.orphaned.join('; ') || (one.hostInterfaces.at(-1) ?? ''),
        ],
        color: one.orphaned.length > 0 ? '#c0392b' : '#2a7f62',
      })),
      ...group.strays.map((name) => ({
        lines: [name, 'of no recorded container', '', ''],
        color: '#b7791f',
      })),
    ];
    const rows = Math.max(1, Math.ceil(boxes.length / perRow));
    const width = perRow * (boxWidth + gap) + gap;
    const height = 56 + rows * (boxHeight + gap);
    parts.push(
      `<rect x="20" y="${y}" width="${width}" height="${height}" rx="8" fill="#f4f6f8" stroke="#4a5568"/>`,
      `<text x="36" y="${y + 26}" font-size="15" font-weight="bold">${escapeText(group.title)}</text>`,
      `<text x="36" y="${y + 44}" fill="#4a5568">${escapeText(group.notes.join(', '))}</text>`,
    );
    boxes.forEach(({ lines, color }, i) => {
      const [x, top] = [
        20 + gap + (i % perRow) * (boxWidth + gap),
        y + 56 + Math.floor(i / perRow) * (boxHeight + gap),
      ];
      parts.push(
        `<line x1="${x + boxWidth / 2}" y1="${top - 8}" x2="${x + boxWidth / 2}" y2="${top}" stroke="${color}"/>`,
        `<rect x="${x}" y="${top}" width="${boxWidth}" height="${boxHeight}" rx="6" fill="#fff" stroke="${color}" stroke-width="2"/>`,
        ...lines.map(
          (line, j) =>
            `<text x="${x + 10}" y="${top + 18 + 16 * j}"${j === 0 ? ' font-weight="bold"' : ''}>${escapeText(shorten(line))}</text>`,
        ),
      );
    });
    y += height + 20;
  }
  const width = 40 + perRow * (boxWidth + gap) + gap;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" font-family="sans-serif" font-size="12">\n<rect width="${width}" height="${y}" fill="#fff"/>\n${parts.join('\n')}\n</svg>\n`;
}

function shorten(text: string): string {
  return text.length > 36 ? `${text.slice(0, 35)}…` : text;
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
