//! Shows ten handwritten digits and what the network says they are.
#![forbid(unsafe_code)]

mod samples;

use samples::{IMAGES, LABELS};

const SIDE: usize = 8;
const PER_LINE: usize = 5;

/// The most probable digit and its probability.
fn classify(
    pixels: &[u8; SIDE * SIDE],
    workspace: &mut digits::Workspace,
) -> Result<(usize, f32), digits::Status> {
    let image = pixels.map(f32::from);
    let mut probabilities = [0.0; 10];
    digits::run(&image, &mut probabilities, workspace)?;
    let mut best = 0;
    for (digit, &probability) in probabilities.iter().enumerate() {
        if probability > probabilities[best] {
            best = digit;
        }
    }
    Ok((best, probabilities[best]))
}

fn draw_row(row: &[u8]) {
    for &pixel in row {
        let shade = b" .:-=+*#%@"[usize::from(pixel) * 9 / 16] as char;
        print!("{shade}{shade}");
    }
    print!("  ");
}

fn main() {
    let mut workspace = digits::Workspace::new();
    let mut right = 0;
    for (images, labels) in IMAGES.chunks(PER_LINE).zip(LABELS.chunks(PER_LINE)) {
        for y in 0..SIDE {
            for image in images {
                draw_row(&image[y * SIDE..(y + 1) * SIDE]);
            }
            println!();
        }
        for (image, &label) in images.iter().zip(labels) {
            match classify(image, &mut workspace) {
                Ok((digit, probability)) => {
                    print!("   {digit} ({:5.1} %)    ", 100.0 * probability);
                    right += usize::from(digit == label);
                }
                Err(status) => {
                    eprintln!("{status}");
                    std::process::exit(1);
                }
            }
        }
        println!("\n");
    }
    println!(
        "{right} of {} are right; compiled for {}",
        IMAGES.len(),
        digits::TARGET
    );
}
