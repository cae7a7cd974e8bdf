"use strict";
// Point viewer on a 2D canvas: software projection with a depth buffer, so it needs neither WebGL nor the network.
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  function open(root) {
    const scenes = JSON.parse(root.querySelector("script").textContent).map((s) => ({
      ...s,
      position: new Uint16Array(bytes(s.position).buffer),
      colors: Object.fromEntries(Object.entries(s.colors).map(([k, v]) => [k, bytes(v)])),
    }));
    const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
    const bar = root.querySelector("div");
    let scene = scenes[0], mode = "image", yaw = 0.7, pitch = 0.55, zoom = 1, pan = [0, 0], queued = false;

    const redraw = () => {
      if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); }
    };

    function draw() {
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
      const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
      pixels.fill(0xff1c1816);
      const depth = new Float32Array(width * height).fill(Infinity);
      const cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
      const { low, extent, center } = scene, radius = scene.radius || 1;
      const distance = (2.4 * radius) / zoom, focal = 0.95 * Math.min(width, height);
      const color = scene.colors[mode], position = scene.position, count = position.length / 3;
      const size = Math.max(1, Math.min(12, (scene.spacing * focal) / distance));
      for (let i = 0; i < count; i++) {
        const x = low[0] - center[0] + (position[3 * i] / 65535) * extent[0];
        const y = low[1] - center[1] + (position[3 * i + 1] / 65535) * extent[1];
        const z = low[2] - center[2] + (position[3 * i + 2] / 65535) * extent[2];
        const right = cy * x - sy * y, ahead = sy * x + cy * y;
        const near = distance + cp * ahead - sp * z, up = sp * ahead + cp * z;
        if (near < 0.02 * radius) continue;
        const scale = focal / near, half = Math.max(0.5, (size * distance) / near / 2);
        const u = width / 2 + right * scale + pan[0] * ratio, v = height / 2 - up * scale + pan[1] * ratio;
        const rgb = 0xff000000 | (color[3 * i + 2] << 16) | (color[3 * i + 1] << 8) | color[3 * i];
        const left = Math.max(0, Math.round(u - half)), end = Math.min(width, Math.max(left + 1, Math.round(u + half)));
        const top = Math.max(0, Math.round(v - half)), bottom = Math.min(height, Math.max(top + 1, Math.round(v + half)));
        for (let row = top; row < bottom; row++) {
          for (let at = row * width + left; at < row * width + end; at++) {
            if (near < depth[at]) { depth[at] = near; pixels[at] = rgb; }
          }
        }
      }
      context.putImageData(image, 0, 0);
    }

    const pointers = new Map();
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      pointers.set(e.pointerId, [e.clientX, e.clientY]);
    });
    canvas.addEventListener("pointermove", (e) => {
      if (!pointers.has(e.pointerId)) return;
      const before = pointers.get(e.pointerId), dx = e.clientX - before[0], dy = e.clientY - before[1];
      const wide = pointers.size === 2 ? spread() : 0;
      pointers.set(e.pointerId, [e.clientX, e.clientY]);
      if (pointers.size === 2) {
        zoom = Math.min(12, Math.max(0.3, (zoom * spread()) / (wide || 1)));
        pan = [pan[0] + dx / 2, pan[1] + dy / 2];
      } else if (e.shiftKey || e.buttons === 2) {
        pan = [pan[0] + dx, pan[1] + dy];
      } else {
        yaw += dx * 0.008;
        pitch = Math.min(1.57, Math.max(-1.57, pitch + dy * 0.008));
      }
      redraw();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => pointers.delete(e.pointerId));
    canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      zoom = Math.min(12, Math.max(0.3, zoom * Math.exp(-e.deltaY * 0.001)));
      redraw();
    }, { passive: false });

    if (scenes.length > 1) {
      const choice = document.createElement("select");
      choice.setAttribute("aria-label", "scene");
      scenes.forEach((s, i) => choice.add(new Option(s.name, i)));
      choice.onchange = () => { scene = scenes[choice.value]; redraw(); };
      bar.append(choice);
    }
    const buttons = Object.keys(scene.colors).map((name) => {
      const button = document.createElement("button");
      button.textContent = name;
      button.onclick = () => { mode = name; press(); redraw(); };
      bar.append(button);
      return button;
    });
    const press = () => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.textContent === mode)));
    press();
    new ResizeObserver(redraw).observe(canvas);
    redraw();
  }

  document.querySelectorAll(".viewer").forEach(open);
})();
