// The digits network in a page: eight by eight pixels in, the most probable digit out. At the start
// it classifies the digits of samples.mjs and says how many are right.

import { load } from "./build/digits.mjs";
import { labels, images } from "./samples.mjs";

const model = await load();

function classify(pixels) {
  model.inputs.image.set(pixels);
  const { probabilities } = model.run();
  return probabilities.indexOf(Math.max(...probabilities));
}

const right = images.filter((pixels, i) => classify(pixels) === labels[i]).length;
document.getElementById("verdict").textContent =
  `The network, checked in this browser: ${right} of ${images.length} are right.`;

// Drawing: ink runs from 0 to 16, as in the images that the network was trained on.
const board = document.getElementById("board");
const context = board.getContext("2d");
const ink = new Float32Array(64);

function show() {
  for (let i = 0; i < 64; i++) {
    const shade = 255 - (ink[i] * 255) / 16;
    context.fillStyle = `rgb(${shade}, ${shade}, ${shade})`;
    context.fillRect(i % 8, Math.floor(i / 8), 1, 1);
  }
  document.getElementById("guess").textContent = ink.some((x) => x > 0) ? classify(ink) : "?";
}

board.addEventListener("pointermove", (event) => {
  if (!event.buttons) return;
  const area = board.getBoundingClientRect();
  const x = ((event.clientX - area.left) / area.width) * 8 - 0.5;
  const y = ((event.clientY - area.top) / area.height) * 8 - 0.5;
  for (let i = 0; i < 64; i++) {
    const distance = Math.hypot((i % 8) - x, Math.floor(i / 8) - y);
    ink[i] = Math.min(16, ink[i] + Math.max(0, 6 * (1 - distance)));
  }
  show();
});

document.getElementById("clear").addEventListener("click", () => {
  ink.fill(0);
  show();
});

show();
